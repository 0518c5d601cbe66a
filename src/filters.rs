//! The table of filters. A new filter is one line here; mesh, snapshot and stack take it from this table.

#[cfg(test)]
pub(crate) mod contract;

use filter_api::{ConnectionFacts, End, Error, Keep, Observers, Outcome, Slot, Slots, Spec};
use serde::{Deserialize, Serialize};

macro_rules! filters {
    (port: [$($(#[$only:meta])* $port:ident: $port_filter:path,)*], route: [$($route:ident: $route_filter:path,)*]) => {
        /// Settings of the filters before route matching.
        #[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
        #[serde(default)]
        pub struct PortSettings {
            $($(#[$only])*
            #[doc = concat!("Settings of `", stringify!($port), "`, in the order in which they apply.")]
            pub $port: Vec<<$port_filter as Spec>::Settings>,)*
        }

        /// Settings of the filters after route matching.
        #[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
        #[serde(default)]
        pub struct RouteSettings {
            $(#[doc = concat!("Settings of `", stringify!($route), "`, in the order in which they apply.")]
            pub $route: Vec<<$route_filter as Spec>::Settings>,)*
        }

        #[allow(non_camel_case_types, reason = "one variant per line of the table, named as the line")]
        enum PortPlace { $($(#[$only])* $port,)* Count }
        #[allow(non_camel_case_types, reason = "one variant per line of the table, named as the line")]
        enum RoutePlace { $($route,)* Count }

        /// Where each filter before route matching finds its settings.
        #[allow(non_upper_case_globals, reason = "named as the line of the table")]
        pub mod port {
            use super::*;
            $($(#[$only])*
            #[doc = concat!("The slot of `", stringify!($port), "`.")]
            pub const $port: Slot<$port_filter> = Slot::new(PortPlace::$port as usize);)*
        }

        /// Where each filter after route matching finds its settings.
        #[allow(non_upper_case_globals, reason = "named as the line of the table")]
        pub mod route {
            use super::*;
            $(#[doc = concat!("The slot of `", stringify!($route), "`.")]
            pub const $route: Slot<$route_filter> = Slot::new(RoutePlace::$route as usize);)*
        }

        impl PortSettings {
            /// Compiles the policy of a port. The error names filter and field.
            pub fn compile(&self, keep: &Keep) -> Result<Slots, String> {
                let slots = Slots::empty(PortPlace::Count as usize);
                $($(#[$only])*
                let slots = slots.with(port::$port, compile_all::<$port_filter>(self.$port.iter(), keep)?);)*
                Ok(slots)
            }
        }

        /// Asks the filters of a port about a connection, in the order of the table. What comes back is told how it ends.
        ///
        /// # Errors
        ///
        /// The first refusal. The filters before it have been told then.
        pub fn on_connection(slots: &Slots, connection: &ConnectionFacts) -> Result<Observers, Error> {
            let mut admitted = Observers::new();
            $($(#[$only])*
            {
                if let Err(error) = filter_api::admit(slots, port::$port, connection, &mut admitted) {
                    ended(admitted, Outcome::Reset(error.reason()), 0);
                    return Err(error);
                }
            })*
            Ok(admitted)
        }

        impl RouteSettings {
            /// Compiles the settings of a route and those of one of its destinations after them. The error names filter and field.
            pub fn compile(&self, destination: &Self, keep: &Keep) -> Result<Slots, String> {
                let slots = Slots::empty(RoutePlace::Count as usize);
                $(let slots = slots.with(
                    route::$route,
                    compile_all::<$route_filter>(self.$route.iter().chain(&destination.$route), keep)?,
                );)*
                Ok(slots)
            }
        }
    };
}

filters! {
    port: [
        arrival: filter_authorization::access::Arrival,
        jwt: filter_jwt::Jwt,
        authorization: filter_authorization::Authorization,
        access: filter_authorization::access::Access,
        #[cfg(test)]
        waiting: contract::Waiting,
        #[cfg(test)]
        permit: contract::Permit,
    ],
    route: [
        transform: filter_transform::Transform,
        timeout: filter_timeout::Timeout,
    ]
}

/// Tells the filters that let a connection go on how it ended, after so many bytes of both directions.
pub fn ended(admitted: Observers, outcome: Outcome, bytes: u64) {
    for observer in admitted {
        observer.on_end(&End { outcome, bytes, trailers: None });
    }
}

fn compile_all<'a, F: Spec>(
    settings: impl Iterator<Item = &'a F::Settings>,
    keep: &Keep,
) -> Result<Vec<F::Compiled>, String> {
    settings
        .map(|settings| F::compile(settings, keep).map_err(|error| format!("{}: {error}", F::NAME)))
        .collect()
}
