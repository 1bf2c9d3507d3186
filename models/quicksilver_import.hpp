#pragma once

#include "engine/torch_file.hpp"
#include "models/quicksilver_file.hpp"

namespace cinnabar {

/// A network of the original program as its .pth.tar file has it.
struct ImportedQuicksilver {
  QuicksilverDescription description;
  SafeTensors weights;
};

/// Takes patch_size, network_feature, state_dict and deformation_params from the content of such a file;
/// other entries become notes. Content that is a state_dict itself is taken too. Tensor names lose the
/// "module." of networks that were trained on several devices. Nothing says which role a network has:
/// prediction. Throws InputError.
ImportedQuicksilver import_quicksilver(const TorchValue& content);

}  // namespace cinnabar
