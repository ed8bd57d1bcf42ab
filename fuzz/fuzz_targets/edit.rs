#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| spanwire_fuzz::edit::check(data));
