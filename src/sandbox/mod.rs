//! What `imgwire-gate sandbox` adds to the gate: an emulated Imgwire, the playground page, and limits on what a config
//! from that page can name. The tests use the emulator, too.

pub(crate) mod confine;
pub mod emulator;
pub(crate) mod playground;
