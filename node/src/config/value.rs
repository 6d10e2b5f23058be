//! How one configuration value is read from a file or from text, and shown.

use std::fmt::{self, Display};
use std::net::SocketAddr;
use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::str::FromStr;

use toml::de::DeValue;

use crate::auth::http::Url;
use crate::auth::jwt::{Algorithm, Requirement, TokenField};
use crate::auth::{CertificateName, ClientIds, Denied, Network, Password};
use crate::broker::{Minority, NoMatch};
use crate::net::AllowedOrigin;
use crate::session::Durability;
use crate::sharing::{GroupRule, Strategy};
use crate::state::limits::WhenFull;

/// Where a value comes from: a TOML file, or the text of an environment variable or `--set`.
pub(super) enum Input<'a> {
    Toml(&'a DeValue<'a>),
    Text(&'a str),
}

/// A type that configuration keys can have.
pub(super) trait Setting: Sized {
    /// Whether it is not to be shown, and not to be given as an argument, which other users of the
    /// machine can see.
    const SECRET: bool = false;

    /// # Errors
    /// What was expected instead, for a person.
    fn read(input: &Input<'_>) -> Result<Self, String>;

    /// The value as TOML.
    fn show(&self) -> String;
}

/// A peer's address as written by a person: an IP address or a host name, and a port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HostPort {
    /// Without the brackets of an IPv6 address.
    pub host: String,
    pub port: u16,
}

/// A way to find out who a client is from what is in its CONNECT.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AuthMethod {
    /// The certificate that it has shown.
    Certificate,
    /// User name and password of a user of the cluster.
    Users,
    /// A JSON Web Token.
    Jwt,
    /// A service of the operator's.
    Http,
}

/// How log lines are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogFormat {
    /// For people.
    Text,
    /// One JSON object per line.
    Json,
}

impl FromStr for HostPort {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || format!("expected HOST:PORT such as 10.0.0.5:17883, not {text:?}");
        if let Ok(address) = text.parse::<SocketAddr>() {
            return Ok(Self { host: address.ip().to_string(), port: address.port() });
        }
        let (host, port) = text.rsplit_once(':').ok_or_else(wrong)?;
        let is_name = !host.is_empty()
            && host.len() <= 253
            && host.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'.' | b'_'));
        if !is_name {
            return Err(wrong());
        }
        Ok(Self { host: host.to_owned(), port: port.parse().map_err(|_| wrong())? })
    }
}

impl Display for HostPort {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.host.contains(':') {
            write!(f, "[{}]:{}", self.host, self.port)
        } else {
            write!(f, "{}:{}", self.host, self.port)
        }
    }
}

fn quote(text: &str) -> String {
    toml::Value::String(text.to_owned()).to_string()
}

fn text_of<'a>(input: &'a Input<'_>, expected: &str) -> Result<&'a str, String> {
    match input {
        Input::Text(text) => Ok(text),
        Input::Toml(value) => {
            value.as_str().ok_or_else(|| format!("expected {expected}, not {}", describe(value)))
        }
    }
}

fn describe(value: &DeValue<'_>) -> String {
    match value {
        DeValue::Integer(n) => format!("the integer {}", n.as_str()),
        DeValue::Float(n) => format!("the float {}", n.as_str()),
        DeValue::Boolean(b) => b.to_string(),
        DeValue::String(s) => format!("the string {s:?}"),
        DeValue::Array(_) => "an array".to_owned(),
        DeValue::Table(_) => "a table".to_owned(),
        DeValue::Datetime(_) => "a date".to_owned(),
    }
}

impl Setting for String {
    fn read(input: &Input<'_>) -> Result<Self, String> {
        text_of(input, "a string").map(str::to_owned)
    }

    fn show(&self) -> String {
        quote(self)
    }
}

impl Setting for PathBuf {
    fn read(input: &Input<'_>) -> Result<Self, String> {
        match text_of(input, "a path in quotes")? {
            "" => Err("expected a path, not an empty string".to_owned()),
            path => Ok(path.into()),
        }
    }

    fn show(&self) -> String {
        quote(&self.to_string_lossy())
    }
}

impl Setting for bool {
    fn read(input: &Input<'_>) -> Result<Self, String> {
        match input {
            Input::Toml(DeValue::Boolean(b)) => Ok(*b),
            Input::Toml(other) => Err(format!("expected true or false, not {}", describe(other))),
            Input::Text(text) => text.parse().map_err(|_| format!("expected true or false, not {text:?}")),
        }
    }

    fn show(&self) -> String {
        self.to_string()
    }
}

macro_rules! integer_setting {
    ($($ty:ty),+) => { $(
        impl Setting for $ty {
            fn read(input: &Input<'_>) -> Result<Self, String> {
                let (digits, radix, shown) = match input {
                    Input::Text(text) => (text.replace('_', ""), 10, format!("{text:?}")),
                    Input::Toml(DeValue::Integer(n)) => {
                        (n.as_str().to_owned(), n.radix(), format!("the integer {}", n.as_str()))
                    }
                    Input::Toml(other) => return Err(format!("expected an integer, not {}", describe(other))),
                };
                <$ty>::from_str_radix(&digits, radix)
                    .map_err(|_| format!("expected an integer from 0 to {}, not {shown}", <$ty>::MAX))
            }

            fn show(&self) -> String {
                self.to_string()
            }
        }
    )+ };
}
integer_setting!(u16, u32, u64);

impl Setting for SocketAddr {
    fn read(input: &Input<'_>) -> Result<Self, String> {
        let expected = "an IP address and port in quotes such as \"127.0.0.1:1883\"";
        let text = text_of(input, expected)?;
        text.parse().map_err(|_| format!("expected {expected}, not {text:?}"))
    }

    fn show(&self) -> String {
        quote(&self.to_string())
    }
}

/// An empty string stands for "not set", so that a file's value can be taken back by a later source.
impl<T: Setting> Setting for Option<T> {
    const SECRET: bool = T::SECRET;

    fn read(input: &Input<'_>) -> Result<Self, String> {
        match input {
            Input::Text("") => Ok(None),
            Input::Toml(DeValue::String(s)) if s.is_empty() => Ok(None),
            input => T::read(input).map(Some),
        }
    }

    fn show(&self) -> String {
        self.as_ref().map_or_else(|| "\"\"".to_owned(), Setting::show)
    }
}

/// In a file an array; in text, items separated by commas.
impl<T: Setting> Setting for Vec<T> {
    fn read(input: &Input<'_>) -> Result<Self, String> {
        match input {
            Input::Toml(DeValue::Array(items)) => {
                items.iter().map(|item| T::read(&Input::Toml(item.get_ref()))).collect()
            }
            Input::Toml(other) => Err(format!("expected an array, not {}", describe(other))),
            Input::Text(text) => text
                .split(',')
                .map(str::trim)
                .filter(|item| !item.is_empty())
                .map(|item| T::read(&Input::Text(item)))
                .collect(),
        }
    }

    fn show(&self) -> String {
        format!("[{}]", self.iter().map(Setting::show).collect::<Vec<_>>().join(", "))
    }
}

/// A key whose value is one of a few words.
macro_rules! word_setting {
    ($name:ident { $($variant:ident = $word:literal),+ $(,)? }) => {
        impl Setting for $name {
            fn read(input: &Input<'_>) -> Result<Self, String> {
                let expected = || format!("expected one of: {}", [$($word),+].join(", "));
                match text_of(input, "a word").map_err(|_| expected())? {
                    $($word => Ok(Self::$variant),)+
                    _ => Err(expected()),
                }
            }

            fn show(&self) -> String {
                quote(match self { $(Self::$variant => $word),+ })
            }
        }
    };
}
word_setting!(LogFormat { Text = "text", Json = "json" });
word_setting!(WhenFull { DropOldest = "drop_oldest", Refuse = "refuse" });
word_setting!(AuthMethod { Certificate = "certificate", Users = "users", Jwt = "jwt", Http = "http" });
word_setting!(CertificateName {
    CommonName = "common_name",
    DnsName = "dns_name",
    Email = "email",
    Uri = "uri"
});
word_setting!(NoMatch { Auto = "auto", Allow = "allow", Deny = "deny" });
word_setting!(Denied { Ignore = "ignore", Disconnect = "disconnect" });
word_setting!(ClientIds { Any = "any", User = "user", UserPrefix = "user_prefix" });
word_setting!(TokenField { Password = "password", Username = "username" });
word_setting!(Minority { Qos0 = "qos0", Close = "close", Available = "available" });

impl Setting for Durability {
    fn read(input: &Input<'_>) -> Result<Self, String> {
        let expected = "expected one of: quorum, leader, memory";
        let word = text_of(input, expected).map_err(|_| expected.to_owned())?;
        let all = [Self::Quorum, Self::Leader, Self::Memory];
        all.into_iter().find(|level| level.name() == word).ok_or_else(|| expected.to_owned())
    }

    fn show(&self) -> String {
        quote(self.name())
    }
}

impl Setting for Strategy {
    fn read(input: &Input<'_>) -> Result<Self, String> {
        text_of(input, "the name of a strategy in quotes")?.parse()
    }

    fn show(&self) -> String {
        quote(self.name())
    }
}

/// A key whose value is written as its type is.
macro_rules! written_setting {
    ($($ty:ty = $expected:literal),+ $(,)?) => { $(
        impl Setting for $ty {
            fn read(input: &Input<'_>) -> Result<Self, String> {
                text_of(input, $expected)?.parse()
            }

            fn show(&self) -> String {
                quote(&self.to_string())
            }
        }
    )+ };
}
written_setting!(
    HostPort = "HOST:PORT in quotes",
    GroupRule = "NAME=STRATEGY in quotes",
    Network = "an address or a network in quotes",
    AllowedOrigin = "an origin in quotes",
);

impl Setting for Password {
    const SECRET: bool = true;

    fn read(input: &Input<'_>) -> Result<Self, String> {
        match input {
            Input::Text(text) => Ok(Self::new(text.as_bytes())),
            // What else it might be is not repeated.
            Input::Toml(value) => {
                let text = value.as_str().ok_or("expected a string")?;
                Ok(Self::new(text.as_bytes()))
            }
        }
    }

    fn show(&self) -> String {
        quote("…")
    }
}

impl Setting for Url {
    fn read(input: &Input<'_>) -> Result<Self, String> {
        text_of(input, "a URL in quotes")?.parse()
    }

    fn show(&self) -> String {
        quote(&self.to_string())
    }
}

impl Setting for Requirement {
    fn read(input: &Input<'_>) -> Result<Self, String> {
        text_of(input, "FIELD=CLAIM in quotes")?.parse()
    }

    fn show(&self) -> String {
        quote(&self.to_string())
    }
}

impl Setting for Algorithm {
    fn read(input: &Input<'_>) -> Result<Self, String> {
        let name = text_of(input, "the name of an algorithm in quotes")?;
        name.parse().map_err(|_| format!("expected an algorithm such as RS256, not {name:?}"))
    }

    fn show(&self) -> String {
        quote(&format!("{self:?}"))
    }
}

/// Accepts values within `bounds`.
pub(super) fn range<T: PartialOrd + Display>(bounds: RangeInclusive<T>) -> impl Fn(&T) -> Result<(), String> {
    move |value| {
        if bounds.contains(value) {
            Ok(())
        } else {
            Err(format!("must be from {} to {}, not {value}", bounds.start(), bounds.end()))
        }
    }
}

/// Accepts only the values listed.
pub(super) fn one_of<T: PartialEq + Display>(values: &[T]) -> impl Fn(&T) -> Result<(), String> {
    move |value| {
        if values.contains(value) {
            Ok(())
        } else {
            let all = values.iter().map(ToString::to_string).collect::<Vec<_>>().join(" or ");
            Err(format!("must be {all}, not {value}"))
        }
    }
}
