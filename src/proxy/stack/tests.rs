use super::*;

fn size_of_future<'a, S: Service<Request>>(_: impl FnOnce(&'a Rc<Worker>) -> S) -> usize {
    size_of::<S::Future>()
}

/// An exchange is one future that every layer has moved once: each byte of it is paid by every request.
#[test]
fn the_future_of_the_whole_stack_fits_in_two_kibibytes() {
    fn inner<A, B, C, F>(_: impl Fn(A, B, C) -> F) -> usize {
        size_of::<F>()
    }
    println!("upstream {}", inner(upstream::call));
    println!(
        "request {} body {} response {}",
        size_of::<Request>(),
        size_of::<filter_api::Body>(),
        size_of::<filter_api::Response>()
    );
    let size = size_of_future(build);
    println!("stack {}", size);
    assert!(size <= 2048, "{size} bytes");
}
