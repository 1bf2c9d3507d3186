# Install rules and the package that find_package(Cinnabar) finds.
