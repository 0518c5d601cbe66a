//! Header changes, rewrites, redirects and direct responses: what VirtualService `headers`, `rewrite`, `redirect` and `directResponse` say.
//!
//! A route's settings come first, those of the chosen destination after them. All of it looks at the request as it came: a header change does
//! not move a redirect. An answer of our own (redirect, direct response) ends the request here and takes the response headers too.

mod changes;
mod decide;
mod redirect;
mod rewrite;
mod settings;
#[cfg(test)]
mod tests;

pub use decide::{Answered, Compiled, Decision, Edit, decide};
pub use settings::{HeaderChange, HeaderChanges, PathRewrite, Redirect, RedirectPath, Reply, Settings};

use filter_api::{Error, Filter, FilterPlace, NoTrace, Reason, Request, Response, Spec, Step};

/// The filter. See the crate's documentation.
#[derive(Debug)]
pub struct Transform;

impl Spec for Transform {
    const NAME: &'static str = "transform";
    type Settings = Settings;
    type Compiled = Compiled;

    fn compile(settings: &Settings, _: &filter_api::Keep) -> Result<Compiled, String> {
        Compiled::new(settings)
    }
}

impl Filter for Transform {
    const PLACE: FilterPlace = FilterPlace::Route;
    const AFTER: bool = true;
    const ENDS: bool = false;
    type State = ();

    fn on_request(settings: &[Compiled], mut request: Request) -> Step<()> {
        match decide(settings, &request.head, &mut NoTrace) {
            Decision::Forward(edit) => {
                let original = match (&edit.path, request.head.uri.path_and_query()) {
                    (Some(_), Some(original)) => Some(original.as_str().into()),
                    _ => None,
                };
                if let Err(why) = edit.apply(settings, &mut request.head) {
                    return Step::Fail(Error::new(Reason::BadRewrite).detail(why));
                }
                if original.is_some() {
                    request.cx.facts.borrow_mut().original_path = original;
                }
                Step::Continue(request, ())
            }
            Decision::Reply(Answered { origin, because, status, headers, body }) => {
                let mut response = Response::new(status).with_body(body);
                response.head.headers = headers;
                request.cx.facts.borrow_mut().details = Some("direct_response".into());
                request.cx.record(Self::NAME, origin, because);
                Self::on_response(settings, &mut (), &mut response);
                Step::Reply(response)
            }
            Decision::Fail(why) => Step::Fail(Error::new(Reason::BadRewrite).detail(why)),
        }
    }

    fn on_response(settings: &[Compiled], (): &mut (), response: &mut Response) {
        decide::change_response(settings, &mut response.head.headers);
    }
}
