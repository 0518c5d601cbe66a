//! Tells the linker how the release binary is to be laid out.
//!
//! `link/resident.ld` puts together what a running proxy executes; see there. Only for Linux, where the linkers that Rust uses by default (lld, and
//! GNU ld) read such a file; `SIDEGATE_PLAIN_LINK=1` leaves it out, for a linker that does not (mold).

use std::env;
use std::path::Path;

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-changed=link/resident.ld");
    println!("cargo::rerun-if-env-changed=SIDEGATE_PLAIN_LINK");
    let is = |name: &str, value: &str| env::var(name).is_ok_and(|set| set == value);
    let plain = env::var_os("SIDEGATE_PLAIN_LINK").is_some();
    if plain || !is("CARGO_CFG_TARGET_OS", "linux") || !is("PROFILE", "release") {
        return;
    }
    let root = env::var_os("CARGO_MANIFEST_DIR").unwrap_or_default();
    let script = Path::new(&root).join("link/resident.ld");
    println!("cargo::rustc-link-arg-bin=sidegate=-Wl,-T,{}", script.display());
}
