//! Cross-origin requests: what a browser is told about pages of other origins.
//!
//! Source: "CORS protocol" in the Fetch standard, and `cors` in `config/confighttp/README.md` of the
//! OpenTelemetry Collector.

use std::time::Duration;

use bytes::Bytes;
use http::header::{self, HeaderName};
use http::request::Parts;
use http::{HeaderMap, HeaderValue, Method, Response, StatusCode};

use crate::builder::BindError;

/// Which web pages may send to the HTTP port: settings of [`Builder::cors`](crate::Builder::cors).
///
/// It protects the pages' visitors and not the receiver: whatever is not a browser sends anyway, and
/// a browser may send a simple request before it learns that the page must not see the answer.
///
/// ```
/// use std::time::Duration;
///
/// use spanwire_receiver::{Cors, Receiver};
///
/// let builder = Receiver::builder().cors(Cors {
///     allowed_origins: vec!["https://shop.example".to_owned(), "https://*.shop.example".to_owned()],
///     allowed_headers: vec!["X-Tenant".to_owned()],
///     max_age: Some(Duration::from_secs(7200)),
/// });
/// # let _ = builder;
/// ```
#[derive(Clone, Debug, Default)]
pub struct Cors {
    /// The pages' origins: scheme, host, and port where it is not the scheme's, in letters of either
    /// case. One `*` in each stands for any characters, or none. With none listed, cross-origin
    /// requests are not answered for at all.
    ///
    /// A bare `*` allows every page, but not with cookies or client certificates, which browsers
    /// send along in `navigator.sendBeacon`; `https://*` allows those too.
    pub allowed_origins: Vec<String>,
    /// Headers that a page may set, beside `Accept`, `Accept-Language`, `Content-Language` and
    /// `Content-Type`, in letters of either case. `*` allows every one. With none listed,
    /// `X-Requested-With` is allowed too.
    pub allowed_headers: Vec<String>,
    /// How long a browser may keep what it was told about a page, in whole seconds. Most keep it for
    /// five seconds if they are not told.
    pub max_age: Option<Duration>,
}

/// [`Cors`], read.
#[derive(Clone, Debug)]
pub(crate) struct Policy {
    /// `None` allows any origin.
    origins: Option<Vec<Pattern>>,
    /// In lower case; `None` allows any.
    headers: Option<Vec<String>>,
    max_age: Option<HeaderValue>,
}

impl Policy {
    /// `None` where no origin is allowed.
    pub(crate) fn new(cors: &Cors) -> Result<Option<Self>, BindError> {
        if cors.allowed_origins.is_empty() {
            return Ok(None);
        }
        let origins = match cors.allowed_origins.iter().any(|origin| origin == "*") {
            true => None,
            false => {
                let origins = cors.allowed_origins.iter();
                let rule = "an allowed origin must not have more than one *";
                let origins: Option<Vec<_>> = origins.map(|origin| Pattern::new(origin)).collect();
                Some(origins.ok_or(BindError::Setting { rule })?)
            }
        };
        let headers = cors.allowed_headers.iter().map(|name| name.to_ascii_lowercase());
        let headers = match cors.allowed_headers.iter().any(|name| name == "*") {
            true => None,
            false if cors.allowed_headers.is_empty() => Some(vec!["x-requested-with".to_owned()]),
            false => Some(headers.collect()),
        };
        let max_age = cors.max_age.map(|age| HeaderValue::from(age.as_secs()));
        Ok(Some(Self { origins, headers, max_age }))
    }

    /// The answer to a preflight; `None` for any other request.
    ///
    /// What is not allowed is answered all the same, and says so by saying nothing.
    pub(crate) fn preflight(&self, request: &Parts) -> Option<Response<Bytes>> {
        let method = request.headers.get(header::ACCESS_CONTROL_REQUEST_METHOD)?;
        if request.method != Method::OPTIONS {
            return None;
        }
        let mut response = Response::new(Bytes::new());
        *response.status_mut() = StatusCode::NO_CONTENT;
        let headers = response.headers_mut();
        let vary = "Origin, Access-Control-Request-Method, Access-Control-Request-Headers";
        headers.insert(header::VARY, HeaderValue::from_static(vary));
        let wanted = request.headers.get_all(header::ACCESS_CONTROL_REQUEST_HEADERS);
        let is_allowed = method == Method::POST.as_str() && wanted.iter().all(|w| self.allows(w));
        if is_allowed && self.allow_origin(&request.headers, headers) {
            let post = HeaderValue::from_static("POST");
            headers.insert(header::ACCESS_CONTROL_ALLOW_METHODS, post);
            for wanted in wanted {
                headers.append(header::ACCESS_CONTROL_ALLOW_HEADERS, wanted.clone());
            }
            if let Some(max_age) = &self.max_age {
                headers.insert(header::ACCESS_CONTROL_MAX_AGE, max_age.clone());
            }
        }
        Some(response)
    }

    /// Lets the page that sent `request` see the answer, if it may.
    pub(crate) fn answer(&self, request: &HeaderMap, response: &mut HeaderMap) {
        if self.origins.is_some() {
            response.append(header::VARY, HeaderValue::from_static("Origin"));
        }
        self.allow_origin(request, response);
    }

    fn allow_origin(&self, request: &HeaderMap, response: &mut HeaderMap) -> bool {
        let Some(origin) = request.get(header::ORIGIN) else {
            return false;
        };
        match &self.origins {
            None => {
                let any = HeaderValue::from_static("*");
                response.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, any);
            }
            Some(allowed) => {
                let name = origin.as_bytes().to_ascii_lowercase();
                if !allowed.iter().any(|pattern| pattern.matches(&name)) {
                    return false;
                }
                response.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, origin.clone());
                let credentials = HeaderValue::from_static("true");
                response.insert(header::ACCESS_CONTROL_ALLOW_CREDENTIALS, credentials);
            }
        }
        true
    }

    /// Whether every header is allowed that `wanted` lists.
    fn allows(&self, wanted: &HeaderValue) -> bool {
        let Some(allowed) = &self.headers else {
            return true;
        };
        let names = wanted.as_bytes().split(|byte| *byte == b',').map(<[u8]>::trim_ascii);
        names.filter(|name| !name.is_empty()).all(|name| {
            let is = |known: &str| name.eq_ignore_ascii_case(known.as_bytes());
            HEADERS_SAFE.iter().any(|safe| is(safe.as_str()))
                || allowed.iter().any(|known| is(known))
        })
    }
}

/// An origin in lower case, or what comes before and after its `*`.
#[derive(Clone, Debug)]
struct Pattern {
    start: String,
    /// `None` where there is no `*`.
    end: Option<String>,
}

impl Pattern {
    fn new(origin: &str) -> Option<Self> {
        let mut parts = origin.split('*').map(str::to_ascii_lowercase);
        let (start, end) = (parts.next()?, parts.next());
        parts.next().is_none().then_some(Self { start, end })
    }

    fn matches(&self, origin: &[u8]) -> bool {
        match &self.end {
            None => origin == self.start.as_bytes(),
            Some(end) => origin
                .strip_prefix(self.start.as_bytes())
                .is_some_and(|rest| rest.ends_with(end.as_bytes())),
        }
    }
}

/// "CORS-safelisted request-header" in the Fetch standard; of `Content-Type` three values only, so
/// browsers ask about it for OTLP's.
const HEADERS_SAFE: [HeaderName; 4] =
    [header::ACCEPT, header::ACCEPT_LANGUAGE, header::CONTENT_LANGUAGE, header::CONTENT_TYPE];

#[cfg(test)]
mod tests {
    use super::*;

    fn allowed(patterns: &[&str], origin: &'static str) -> Option<HeaderMap> {
        let cors = Cors {
            allowed_origins: patterns.iter().map(|&pattern| pattern.to_owned()).collect(),
            ..Cors::default()
        };
        let policy = Policy::new(&cors).expect("at most one *").expect("origins");
        let mut request = HeaderMap::new();
        request.insert(header::ORIGIN, HeaderValue::from_static(origin));
        let mut response = HeaderMap::new();
        policy.allow_origin(&request, &mut response).then_some(response)
    }

    #[test]
    fn an_origin_is_allowed_by_its_name_or_by_one_wildcard() {
        for (pattern, origin, is_allowed) in [
            ("https://a.example", "https://a.example", true),
            ("https://A.example", "https://a.EXAMPLE", true),
            ("https://a.example", "https://a.example:8443", false),
            ("https://a.example", "http://a.example", false),
            ("https://a.example", "https://a.example.evil", false),
            ("https://*.a.example", "https://b.a.example", true),
            ("https://*.a.example", "https://c.b.a.example", true),
            ("https://*.a.example", "https://a.example", false),
            ("https://*.a.example", "https://evil.example/.a.example.evil", false),
            ("https://a.example:*", "https://a.example:8443", true),
            ("https://a*a", "https://a", false),
            ("https://a*a", "https://aa", true),
            ("https://*", "https://a.example", true),
            ("https://*", "http://a.example", false),
            ("*", "null", true),
            ("https://*", "null", false),
        ] {
            let others = ["http://other.example", pattern];
            assert_eq!(allowed(&others, origin).is_some(), is_allowed, "{pattern} {origin}");
        }
    }

    #[test]
    fn any_origin_is_allowed_without_credentials_and_a_known_one_with_them() {
        let any = allowed(&["*"], "https://a.example").expect("allowed");
        assert_eq!(any[header::ACCESS_CONTROL_ALLOW_ORIGIN], "*");
        assert!(!any.contains_key(header::ACCESS_CONTROL_ALLOW_CREDENTIALS));
        let known = allowed(&["https://*"], "https://A.example").expect("allowed");
        assert_eq!(known[header::ACCESS_CONTROL_ALLOW_ORIGIN], "https://A.example");
        assert_eq!(known[header::ACCESS_CONTROL_ALLOW_CREDENTIALS], "true");
    }

    #[test]
    fn two_wildcards_in_an_origin_are_refused_and_no_origin_is_no_policy() {
        let cors = |origins: &[&str]| Cors {
            allowed_origins: origins.iter().map(|&origin| origin.to_owned()).collect(),
            ..Cors::default()
        };
        assert!(Policy::new(&cors(&["https://*.*.example"])).is_err());
        assert!(Policy::new(&cors(&[])).expect("nothing wrong").is_none());
    }
}
