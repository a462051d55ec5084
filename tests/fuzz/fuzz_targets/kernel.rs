//! Any octets through the program in the kernel and the parser on the host.
#![no_main]

libfuzzer_sys::fuzz_target!(|octets: &[u8]| tests::fuzz::check_kernel(octets));
