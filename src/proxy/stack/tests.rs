use super::*;

fn size_of_future<'a, S: Service<Request>>(_: impl FnOnce(&'a Rc<Worker>) -> S) -> usize {
    size_of::<S::Future>()
}

/// An exchange is one future. It lies in the task of its connection, and what is outside of the outermost layer moves it.
#[test]
fn the_future_of_the_whole_stack_fits_in_two_kibibytes() {
    let size = size_of_future(build);
    assert!(size <= 2048, "{size} bytes; box what is rare (see `upstream::call`)");
}

mod contract;
mod support;
