//! What virtual machines with emulated NPUs are made of, for every suite that starts some.

pub mod device;
pub mod emulator;
pub mod fetch;
