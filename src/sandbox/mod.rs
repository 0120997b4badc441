//! The parts of `imgwire-gate sandbox`: an emulator of Imgwire, the playground page, and checks of the configs that the
//! page sends. The tests also use the emulator.

pub(crate) mod confine;
pub mod emulator;
pub(crate) mod own_config;
pub(crate) mod playground;
