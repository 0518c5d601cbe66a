//! Header changes, rewrites, redirects and direct responses: what VirtualService `headers`, `rewrite`, `redirect` and `directResponse` say.
//!
//! A route's settings come first, those of the chosen destination after them, as in Envoy. Request headers change before the rewrite; an
//! answer of our own (redirect, direct response) ends the request here and takes the response headers too.

mod decide;
mod settings;
#[cfg(test)]
mod tests;

pub use decide::{Compiled, Decision, Edit, decide};
pub use settings::{HeaderChange, HeaderChanges, PathRewrite, Redirect, RedirectPath, Reply, Settings};

use filter_api::{Error, Filter, FilterPlace, NoTrace, Reason, Request, Response, Spec, Step};

/// The filter. See the crate's documentation.
#[derive(Debug)]
pub struct Transform;

impl Spec for Transform {
    const NAME: &'static str = "transform";
    type Settings = Settings;
    type Compiled = Compiled;

    fn compile(settings: &Settings) -> Result<Compiled, String> {
        Compiled::new(settings)
    }
}

impl Filter for Transform {
    const PLACE: FilterPlace = FilterPlace::Route;
    const AFTER: bool = true;
    type State = ();

    fn on_request(settings: &[Compiled], mut request: Request) -> Step<()> {
        match decide(settings, &request.head, &mut NoTrace) {
            Decision::Reply(reply) => {
                let mut response = Response::new(reply.status).with_body(reply.body);
                response.head.headers = reply.headers;
                request.cx.facts.borrow_mut().details = Some("direct_response".into());
                Self::on_response(settings, &mut (), &mut response);
                Step::Reply(response)
            }
            Decision::Forward(edit) => {
                let original =
                    edit.path.is_some().then(|| request.head.uri.path_and_query().map(|p| p.as_str().into()));
                if let Err(why) = edit.apply(settings, &mut request.head) {
                    return Step::Fail(Error::new(Reason::BadPath).detail(why));
                }
                if let Some(Some(original)) = original {
                    request.cx.facts.borrow_mut().original_path = Some(original);
                }
                Step::Continue(request, ())
            }
        }
    }

    fn on_response(settings: &[Compiled], (): &mut (), response: &mut Response) {
        for compiled in settings {
            compiled.change_response(&mut response.head.headers);
        }
    }
}
