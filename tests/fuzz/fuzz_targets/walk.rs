//! Any octets through the parser on the host.
#![no_main]

libfuzzer_sys::fuzz_target!(|octets: &[u8]| tests::fuzz::check_walk(octets));
