//! Who takes part in the demo.

use std::fmt;

/// One workload: a proxy, and the application behind it.
#[derive(Debug)]
pub(super) struct Workload {
    /// Its name, that of its process and its log.
    pub(super) name: &'static str,
    /// `namespace/name` of its Proxy.
    pub(super) proxy: &'static str,
    /// Name and version of its application; `None` for the gateway.
    pub(super) application: Option<Application>,
    number: u16,
}

/// What stands behind a proxy.
#[derive(Clone, Copy, Debug)]
pub(super) struct Application {
    /// Its service.
    pub(super) service: &'static str,
    /// Its version.
    pub(super) version: &'static str,
    /// Whom it calls to answer: method, service, path.
    pub(super) calls: &'static [(&'static str, &'static str, &'static str)],
}

/// The last two digits of a workload's ports; Istio's where it has one.
pub(super) mod page {
    /// The admin pages (15000).
    pub(in super::super) const ADMIN: u16 = 0;
    /// Traffic of the application (15001).
    pub(in super::super) const OUTBOUND: u16 = 1;
    /// Traffic to the application (15006).
    pub(in super::super) const INBOUND: u16 = 6;
    /// The health check (15021).
    pub(in super::super) const HEALTH: u16 = 21;
    /// The application, or the port of the gateway.
    pub(in super::super) const SERVICE: u16 = 80;
}

/// The workloads, by the number in their ports.
pub(super) const WORKLOADS: &[Workload] = &[
    Workload { name: "ingress", proxy: "istio-system/ingress", application: None, number: 0 },
    workload(1, "product-service-v1", "ecommerce/product-service-v1", "product-service", "v1", &[]),
    workload(2, "product-service-v2", "ecommerce/product-service-v2", "product-service", "v2", &[]),
    workload(
        3,
        "order-service",
        "ecommerce/order-service",
        "order-service",
        "v1",
        &[
            ("GET", "product-service", "/api/products/7"),
            ("GET", "inventory-service", "/api/stock/7"),
            ("POST", "payment-service", "/api/payments/process"),
            ("GET", "shipping-service", "/api/rates"),
        ],
    ),
    workload(4, "payment-service", "ecommerce/payment-service", "payment-service", "v1", &[]),
    workload(5, "inventory-service", "ecommerce/inventory-service", "inventory-service", "v1", &[]),
    workload(6, "user-service", "ecommerce/user-service", "user-service", "v1", &[]),
    workload(7, "shipping-service", "ecommerce/shipping-service", "shipping-service", "v1", &[]),
];

/// The workload at the edge.
pub(super) const INGRESS: &Workload = &WORKLOADS[0];
/// Version 1 of product-service.
pub(super) const PRODUCT_V1: &Workload = &WORKLOADS[1];
/// The workload that calls others.
pub(super) const ORDER: &Workload = &WORKLOADS[3];

const fn workload(
    number: u16,
    name: &'static str,
    proxy: &'static str,
    service: &'static str,
    version: &'static str,
    calls: &'static [(&'static str, &'static str, &'static str)],
) -> Workload {
    Workload { name, proxy, application: Some(Application { service, version, calls }), number }
}

impl Workload {
    /// A port of this workload as the files name it.
    pub(super) fn port(&self, page: u16) -> u16 {
        18_000 + self.number * 100 + page
    }
}

impl fmt::Display for Application {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.service, self.version)
    }
}
