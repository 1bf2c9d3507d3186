#pragma once

namespace cinnabar::apps {

/// From now on the first Ctrl-C (SIGINT, SIGTERM) only raises a flag, so that a command can stop between two
/// steps and leave nothing half-written; a second one ends the process at once.
void catch_interrupts();
bool interrupted();

}  // namespace cinnabar::apps
