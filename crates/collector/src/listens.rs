//! Which parts of a configuration listen, and whether two of them would be in each other's way.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use spanwire_config::{ComponentId, Config, Listen, Setting};

use crate::pages;
use crate::server::Server;
use crate::sockets::includes;
use crate::start_error::StartError;

/// Each part that is to listen where another one is to: [`StartError::Twice`].
pub(crate) fn check(config: &Config) -> Vec<StartError> {
    let (mut listening, mut twice) = (Vec::<(Setting, Listen)>::new(), Vec::new());
    let receivers = servers(config).map(|(id, server)| {
        (server.protocol().setting(id).key("endpoint"), server.endpoint().clone())
    });
    let pages = pages::endpoints(config).map(|(page, endpoint)| (page, Listen::Tcp(endpoint)));
    for (setting, endpoint) in receivers.chain(pages) {
        if let Some((other, _)) = listening.iter().find(|(_, there)| is_one(there, &endpoint)) {
            let (other, endpoint) = (other.clone(), endpoint.to_string());
            twice.push(StartError::Twice { setting, other, endpoint });
        } else {
            listening.push((setting, endpoint));
        }
    }
    twice
}

/// The servers of all receivers that a pipeline names.
pub(crate) fn servers(config: &Config) -> impl Iterator<Item = (&ComponentId, Server)> {
    let pipelines = &config.service.pipelines;
    let used = |id| pipelines.values().any(|pipeline| pipeline.receivers.contains(id));
    let receivers = config.receivers.iter().filter(move |(id, _)| used(id));
    receivers.flat_map(|(id, receiver)| Server::all(receiver).map(move |server| (id, server)))
}

/// Whether two endpoints have an address in common. What names stand for is not known here, but for
/// the one that every machine has.
fn is_one(one: &Listen, other: &Listen) -> bool {
    let (Listen::Tcp(one), Listen::Tcp(other)) = (one, other) else { return one == other };
    let (Some(one), Some(other)) = (one.rsplit_once(':'), other.rsplit_once(':')) else {
        return false;
    };
    if one.1 != other.1 || one.1 == "0" {
        return false;
    }
    match (address(one.0), address(other.0)) {
        (Some(one), Some(other)) => includes(one, other) || includes(other, one),
        _ => one.0 == other.0,
    }
}

fn address(host: &str) -> Option<IpAddr> {
    match host {
        "" => Some(Ipv6Addr::UNSPECIFIED.into()),
        "localhost" => Some(Ipv4Addr::LOCALHOST.into()),
        host => host.trim_start_matches('[').trim_end_matches(']').parse().ok(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn endpoints_are_one_where_an_address_is_in_both() {
        let one = |one: &str, other: &str| {
            let [one, other] = [one, other].map(|endpoint| Listen::Tcp(endpoint.to_owned()));
            assert_eq!(is_one(&one, &other), is_one(&other, &one));
            is_one(&one, &other)
        };
        for (first, second) in [
            ("localhost:4317", "127.0.0.1:4317"),
            ("0.0.0.0:4317", "localhost:4317"),
            (":4317", "10.0.0.1:4317"),
            ("[::]:4317", "0.0.0.0:4317"),
            ("collector:4317", "collector:4317"),
        ] {
            assert!(one(first, second), "{first} {second}");
        }
        for (first, second) in [
            ("localhost:4317", "localhost:4318"),
            ("127.0.0.1:0", "127.0.0.1:0"),
            ("127.0.0.1:4317", "10.0.0.1:4317"),
            ("0.0.0.0:4317", "[::1]:4317"),
            ("collector:4317", "10.0.0.1:4317"),
        ] {
            assert!(!one(first, second), "{first} {second}");
        }
    }
}
