//! The `sidegate` binary: the library does the work.

use std::process::ExitCode;

// Steady memory under churn: glibc keeps a heap for each thread that it rarely gives back.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

fn main() -> ExitCode {
    sidegate::cli::main()
}
