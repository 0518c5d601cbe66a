//! Tells the linker how the release binary is to be laid out, so that an idle proxy keeps little of it in memory.
//!
//! Only for Linux, where the linkers that Rust uses by default (lld, GNU ld) know how; `SIDEGATE_PLAIN_LINK=1` leaves it all to the linker, for one
//! that does not (mold).

use std::env;
use std::path::Path;
use std::process::Command;

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-changed=link/resident.ld");
    println!("cargo::rerun-if-env-changed=SIDEGATE_PLAIN_LINK");
    let is = |name: &str, value: &str| env::var(name).is_ok_and(|set| set == value);
    let plain = env::var_os("SIDEGATE_PLAIN_LINK").is_some();
    if plain || !is("CARGO_CFG_TARGET_OS", "linux") || !is("PROFILE", "release") {
        return;
    }
    // What a running proxy executes lies together; see there.
    let root = env::var_os("CARGO_MANIFEST_DIR").unwrap_or_default();
    let script = Path::new(&root).join("link/resident.ld");
    println!("cargo::rustc-link-arg-bin=sidegate=-Wl,-T,{}", script.display());
    // The table of addresses that the loader adjusts, read as a whole at each start: 10 KB in place of 700. As any binary does, it then asks for a
    // glibc as new as that of the machine it was built on.
    if is("CARGO_CFG_TARGET_ENV", "gnu") && glibc().is_some_and(|version| version >= (2, 36)) {
        println!("cargo::rustc-link-arg-bin=sidegate=-Wl,-z,pack-relative-relocs");
    }
}

/// Of the machine that builds: `glibc 2.36`.
fn glibc() -> Option<(u32, u32)> {
    let said = Command::new("getconf").arg("GNU_LIBC_VERSION").output().ok()?;
    let said = String::from_utf8(said.stdout).ok()?;
    let (major, minor) = said.trim().strip_prefix("glibc ")?.split_once('.')?;
    Some((major.parse().ok()?, minor.parse().ok()?))
}
