//! Asks Sentinels for the primary.

use std::time::Duration;

use redis::RedisConnectionInfo;
use secrecy::ExposeSecret as _;

use super::{
    connection::{Dialer, Node},
    errors::{explain, has_code},
};
use crate::stores::{fault::Unreachable, kind::SentinelLogin};

pub(super) fn sentinel_login(login: &SentinelLogin) -> RedisConnectionInfo {
    let SentinelLogin { user, password } = login;
    let info = RedisConnectionInfo::default().set_password(password.expose_secret());
    match user {
        Some(user) => info.set_username(user),
        None => info,
    }
}

pub(super) async fn find_primary<'a>(
    dialer: &Dialer,
    login: &RedisConnectionInfo,
    sentinel: &'a Node,
    primary: &str,
    within: Duration,
) -> Result<(&'a Node, Node), Unreachable> {
    let mut connection = dialer.connect(sentinel, login, within).await?;
    let mut query = redis::cmd("SENTINEL");
    query.arg("get-master-addr-by-name").arg(primary);
    let found = query
        .query_async::<Option<(String, u16)>>(&mut connection)
        .await;
    let found = found.map_err(|error| {
        let reason = match has_code(&error, "NOAUTH") {
            true => "the Sentinel requires a password; set `sentinel_password`".to_owned(),
            false => explain(&error, "the server"),
        };
        Unreachable::failed(sentinel, reason)
    });
    match found? {
        Some((host, port)) => Ok((sentinel, Node::Tcp(host, port))),
        None => Err(Unreachable::failed(
            sentinel,
            format!("unknown primary {primary:?}"),
        )),
    }
}
