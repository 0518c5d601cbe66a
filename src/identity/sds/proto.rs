//! The messages of `envoy.service.secret.v3.SecretDiscoveryService`, with the fields that are sent or read here. Other fields are skipped, as
//! protobuf has it; those that would weaken a judgement if they were are read, and refused by name.
//!
//! Names and numbers are those of Envoy's protos: `envoy/service/discovery/v3/discovery.proto`, `envoy/config/core/v3/base.proto`,
//! `envoy/extensions/transport_sockets/tls/v3/{secret,common}.proto`, `google/rpc/status.proto`.

use std::fmt;

use prost::Message;
use zeroize::Zeroize;

/// The path of the method.
pub(super) const STREAM_SECRETS: &str = "/envoy.service.secret.v3.SecretDiscoveryService/StreamSecrets";
/// The type of all resources here.
pub(super) const SECRET: &str = "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.Secret";

#[derive(Clone, PartialEq, Message)]
pub(super) struct DiscoveryRequest {
    /// The last version that was taken.
    #[prost(string, tag = "1")]
    pub(super) version_info: String,
    #[prost(message, optional, tag = "2")]
    pub(super) node: Option<Node>,
    #[prost(string, repeated, tag = "3")]
    pub(super) resource_names: Vec<String>,
    #[prost(string, tag = "4")]
    pub(super) type_url: String,
    #[prost(string, tag = "5")]
    pub(super) response_nonce: String,
    /// Why the response was not taken.
    #[prost(message, optional, tag = "6")]
    pub(super) error_detail: Option<Status>,
}

/// Without `user_agent_build_version`, by which SPIRE would know an Envoy that has its validator.
#[derive(Clone, PartialEq, Message)]
pub(super) struct Node {
    #[prost(string, tag = "1")]
    pub(super) id: String,
    #[prost(string, tag = "2")]
    pub(super) cluster: String,
    #[prost(string, tag = "6")]
    pub(super) user_agent_name: String,
}

/// `google.rpc.Status`.
#[derive(Clone, PartialEq, Message)]
pub(super) struct Status {
    #[prost(int32, tag = "1")]
    pub(super) code: i32,
    #[prost(string, tag = "2")]
    pub(super) message: String,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct DiscoveryResponse {
    #[prost(string, tag = "1")]
    pub(super) version_info: String,
    #[prost(message, repeated, tag = "2")]
    pub(super) resources: Vec<Any>,
    #[prost(string, tag = "4")]
    pub(super) type_url: String,
    #[prost(string, tag = "5")]
    pub(super) nonce: String,
}

/// `google.protobuf.Any`; here its value holds a key.
#[derive(Clone, PartialEq, Message)]
#[prost(skip_debug)]
pub(super) struct Any {
    #[prost(string, tag = "1")]
    pub(super) type_url: String,
    #[prost(bytes = "vec", tag = "2")]
    pub(super) value: Vec<u8>,
}

impl fmt::Debug for Any {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Any").field("type_url", &self.type_url).field("value", &"(secret)").finish()
    }
}

impl Drop for Any {
    fn drop(&mut self) {
        self.value.zeroize();
    }
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct Secret {
    #[prost(string, tag = "1")]
    pub(super) name: String,
    #[prost(message, optional, tag = "2")]
    pub(super) tls_certificate: Option<TlsCertificate>,
    #[prost(message, optional, tag = "4")]
    pub(super) validation_context: Option<ValidationContext>,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct TlsCertificate {
    #[prost(message, optional, tag = "1")]
    pub(super) certificate_chain: Option<DataSource>,
    #[prost(message, optional, tag = "2")]
    pub(super) private_key: Option<DataSource>,
    #[prost(message, optional, tag = "3")]
    pub(super) password: Option<DataSource>,
    #[prost(message, optional, tag = "6")]
    pub(super) private_key_provider: Option<Present>,
    #[prost(message, optional, tag = "8")]
    pub(super) pkcs12: Option<DataSource>,
}

/// `CertificateValidationContext`.
#[derive(Clone, PartialEq, Message)]
pub(super) struct ValidationContext {
    #[prost(message, optional, tag = "1")]
    pub(super) trusted_ca: Option<DataSource>,
    #[prost(string, repeated, tag = "2")]
    pub(super) verify_certificate_hash: Vec<String>,
    #[prost(string, repeated, tag = "3")]
    pub(super) verify_certificate_spki: Vec<String>,
    #[prost(message, optional, tag = "6")]
    pub(super) require_signed_certificate_timestamp: Option<Present>,
    #[prost(message, optional, tag = "7")]
    pub(super) crl: Option<DataSource>,
    #[prost(message, repeated, tag = "9")]
    pub(super) match_subject_alt_names: Vec<Present>,
    #[prost(message, optional, tag = "12")]
    pub(super) custom_validator_config: Option<Present>,
    #[prost(message, repeated, tag = "15")]
    pub(super) match_typed_subject_alt_names: Vec<Present>,
}

/// A message of which only matters that it is there.
#[derive(Clone, Copy, PartialEq, Message)]
pub(super) struct Present {}

/// One of its fields is set.
#[derive(Clone, PartialEq, Message)]
#[prost(skip_debug)]
pub(super) struct DataSource {
    #[prost(string, optional, tag = "1")]
    pub(super) filename: Option<String>,
    #[prost(bytes = "vec", optional, tag = "2")]
    pub(super) inline_bytes: Option<Vec<u8>>,
    #[prost(string, optional, tag = "3")]
    pub(super) inline_string: Option<String>,
    #[prost(string, optional, tag = "4")]
    pub(super) environment_variable: Option<String>,
}

impl fmt::Debug for DataSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DataSource").field("filename", &self.filename).finish_non_exhaustive()
    }
}

impl Drop for DataSource {
    fn drop(&mut self) {
        self.inline_bytes.zeroize();
        self.inline_string.zeroize();
    }
}
