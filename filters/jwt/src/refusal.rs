//! Why a token is refused, in Envoy's words.

use http::StatusCode;

macro_rules! refusals {
    ($($(#[$doc:meta])* $name:ident: $text:literal, $details:literal;)*) => {
        /// Why a token is refused. Texts and details are those of Envoy's `jwt_authn` where it has them.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum Refusal { $($(#[$doc])* $name,)* }

        impl Refusal {
            /// The body of the answer.
            pub const fn text(self) -> &'static str { match self { $(Self::$name => $text,)* } }

            /// Envoy's `response_code_details`.
            pub const fn details(self) -> &'static str {
                match self { $(Self::$name => concat!("jwt_authn_access_denied{", $details, "}"),)* }
            }
        }

        #[cfg(test)]
        const ALL: &[Refusal] = &[$(Refusal::$name,)*];
    };
}

refusals! {
    /// A field or parameter that may be there once is there several times.
    Several: "Jwt is found more than once", "Jwt_is_found_more_than_once";
    /// Not three parts, or longer than any token.
    Format: "Jwt is not in the form of Header.Payload.Signature with two dots and 3 sections",
        "Jwt_is_not_in_the_form_of_Header.Payload.Signature_with_two_dots_and_3_sections";
    /// The header cannot be decoded.
    HeaderBase64: "Jwt header is an invalid Base64url encoded", "Jwt_header_is_an_invalid_Base64url_encoded";
    /// The header is no JSON object, or holds a name twice.
    HeaderJson: "Jwt header is an invalid JSON", "Jwt_header_is_an_invalid_JSON";
    /// No `alg`.
    NoAlgorithm: "Jwt header [alg] field is required and must be a string",
        "Jwt_header_[alg]_field_is_required_and_must_be_a_string";
    /// An `alg` that no key here could have, `none` among them.
    Algorithm: "Jwt header [alg] is not supported", "Jwt_header_[alg]_is_not_supported";
    /// `kid` is no text.
    KeyId: "Jwt header [kid] field is not a string", "Jwt_header_[kid]_field_is_not_a_string";
    /// `crit` names extensions that must be understood; none is (RFC 7515 section 4.1.11).
    Critical: "Jwt header [crit] names extensions that are not supported",
        "Jwt_header_[crit]_names_extensions_that_are_not_supported";
    /// The payload cannot be decoded.
    PayloadBase64: "Jwt payload is an invalid Base64url encoded", "Jwt_payload_is_an_invalid_Base64url_encoded";
    /// The payload is no JSON object, or holds a name twice.
    PayloadJson: "Jwt payload is an invalid JSON", "Jwt_payload_is_an_invalid_JSON";
    /// `iss` is no text.
    Issuer: "Jwt payload [iss] field is not a string", "Jwt_payload_[iss]_field_is_not_a_string";
    /// `sub` is no text.
    Subject: "Jwt payload [sub] field is not a string", "Jwt_payload_[sub]_field_is_not_a_string";
    /// `aud` is neither a text nor a list of texts.
    Audience: "Jwt payload [aud] field is not a string or a list of strings",
        "Jwt_payload_[aud]_field_is_not_a_string_or_a_list_of_strings";
    /// `exp` is no time.
    Expiry: "Jwt payload [exp] field is not a number of seconds", "Jwt_payload_[exp]_field_is_not_a_number_of_seconds";
    /// `nbf` is no time.
    NotBefore: "Jwt payload [nbf] field is not a number of seconds",
        "Jwt_payload_[nbf]_field_is_not_a_number_of_seconds";
    /// `iat` is no time.
    IssuedAt: "Jwt payload [iat] field is not a number of seconds", "Jwt_payload_[iat]_field_is_not_a_number_of_seconds";
    /// The signature cannot be decoded, or is empty.
    SignatureBase64: "Jwt signature is an invalid Base64url encoded", "Jwt_signature_is_an_invalid_Base64url_encoded";
    /// No rule is for this issuer.
    UnknownIssuer: "Jwt issuer is not configured", "Jwt_issuer_is_not_configured";
    /// Its time is over.
    Expired: "Jwt is expired", "Jwt_is_expired";
    /// Its time has not come.
    NotYetValid: "Jwt not yet valid", "Jwt_not_yet_valid";
    /// It is for somebody else.
    AudienceNotAllowed: "Audiences in Jwt are not allowed", "Audiences_in_Jwt_are_not_allowed";
    /// No key of the issuer has its `kid` and `alg`.
    NoKey: "Jwks doesn't have key to match kid or alg from Jwt", "Jwks_doesn't_have_key_to_match_kid_or_alg_from_Jwt";
    /// The keys of the issuer are not there.
    NoKeys: "Jwks remote fetch is failed", "Jwks_remote_fetch_is_failed";
    /// The signature is not that of the issuer.
    Signature: "Jwt verification fails", "Jwt_verification_fails";
    /// The object that says how to verify tokens here is itself not valid.
    Closed: "Jwt cannot be verified: the RequestAuthentication here is not valid",
        "Jwt_cannot_be_verified:_the_RequestAuthentication_here_is_not_valid";
}

impl Refusal {
    /// The status of the answer: 401, and for a token that is meant for somebody else 403, as Envoy has it.
    pub const fn status(self) -> StatusCode {
        match self {
            Self::AudienceNotAllowed => StatusCode::FORBIDDEN,
            _ => StatusCode::UNAUTHORIZED,
        }
    }

    /// `grpc-status` of the answer to a gRPC call: UNAUTHENTICATED, PERMISSION_DENIED for 403.
    pub const fn grpc_status(self) -> u16 {
        match self {
            Self::AudienceNotAllowed => 7,
            _ => 16,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn details_are_the_text_without_spaces() {
        for refusal in ALL {
            let expected = format!("jwt_authn_access_denied{{{}}}", refusal.text().replace(' ', "_"));
            assert_eq!(refusal.details(), expected);
            assert!(
                refusal.text().bytes().all(|byte| (b' '..=b'~').contains(&byte) && byte != b'%'),
                "{refusal:?}"
            );
        }
    }
}
