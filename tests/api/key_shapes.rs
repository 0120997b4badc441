//! Key sets as providers publish them: each function changes a set of complete keys.

use serde_json::{Value, json};

fn keys(set: &mut Value) -> &mut Vec<Value> {
    set["keys"].as_array_mut().unwrap()
}

/// `kty`, `kid`, `use`, `alg` and the key.
pub(crate) fn as_usual(_: &mut Value) {}

pub(crate) fn with_certificates(set: &mut Value) {
    for key in keys(set) {
        key["x5t"] = json!("NjVBRjY5MDlCMUIwNzU4RTA2QzZFMDQ4QzQ2MDAyQjVDNjk1RTM2Qg");
        key["x5c"] = json!(["MIIC+DCCAeCgAwIBAgIJBIGjYW6hFpn2MA0GCSqGSIb3DQEBBQUAMCMxITAfBgNV"]);
    }
}

pub(crate) fn without_algorithms(set: &mut Value) {
    with_certificates(set);
    for key in keys(set) {
        key.as_object_mut().unwrap().remove("alg");
        key["issuer"] = json!("https://login.microsoftonline.com/{tenantid}/v2.0");
    }
}

pub(crate) fn with_operations(set: &mut Value) {
    for key in keys(set) {
        key["ext"] = json!(true);
        key["key_ops"] = json!(["verify"]);
    }
}

pub(crate) fn with_an_encryption_key(set: &mut Value) {
    with_certificates(set);
    let mut other = keys(set)[0].clone();
    other["kid"] = json!("for-encryption");
    other["use"] = json!("enc");
    other["alg"] = json!("RSA-OAEP");
    keys(set).insert(0, other);
}

pub(crate) fn beside_certificates(set: &mut Value) {
    let certificate = json!({ "kid": "one", "cert": "-----BEGIN CERTIFICATE-----\n" });
    set["public_cert"] = certificate.clone();
    set["public_certs"] = json!([certificate]);
}
