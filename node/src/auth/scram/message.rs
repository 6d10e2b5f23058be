//! The client's messages [RFC 5802, section 7].

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;

use super::Key;
use crate::auth::Failure;
use crate::mqtt::ReasonCode;

/// Longest message, bytes: a name, a nonce and a proof are far below it.
const MESSAGE_MAX_BYTES: usize = 4096;
/// Longest nonce that a client may choose, bytes.
const CLIENT_NONCE_MAX_BYTES: usize = 512;

/// It does not follow the grammar.
pub(super) const MALFORMED: Failure =
    Failure::new(ReasonCode::ImplementationSpecificError, "authentication data that is not SCRAM");
const CHANNEL_BINDING: Failure =
    Failure::new(ReasonCode::ImplementationSpecificError, "SCRAM with channel binding, which is not offered");
const EXTENSION: Failure =
    Failure::new(ReasonCode::ImplementationSpecificError, "a mandatory extension of SCRAM");

/// client-first-message.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct ClientFirst<'a> {
    /// As it came, with both commas: the client repeats it in its second message.
    pub gs2_header: &'a str,
    /// Whom the client wants to act as, unless it is itself.
    pub authzid: Option<String>,
    /// The message without the header.
    pub bare: &'a str,
    pub username: String,
    pub nonce: &'a str,
}

impl<'a> ClientFirst<'a> {
    pub fn parse(data: &'a [u8]) -> Result<Self, Failure> {
        let text = text(data)?;
        let (flag, rest) = text.split_once(',').ok_or(MALFORMED)?;
        match flag {
            // `y`: the client would bind, and believes that we do not offer it, which is so.
            "n" | "y" => {}
            _ if flag.starts_with("p=") => return Err(CHANNEL_BINDING),
            _ => return Err(MALFORMED),
        }
        let (authzid, bare) = rest.split_once(',').ok_or(MALFORMED)?;
        let authzid = match authzid {
            "" => None,
            _ => Some(name(attribute(Some(authzid), "a=")?)?),
        };
        if bare.starts_with("m=") {
            return Err(EXTENSION);
        }
        let mut attributes = bare.split(',');
        let username = name(attribute(attributes.next(), "n=")?)?;
        let nonce = attribute(attributes.next(), "r=")?;
        let printable = nonce.bytes().all(|byte| byte.is_ascii_graphic());
        if !printable || nonce.len() > CLIENT_NONCE_MAX_BYTES {
            return Err(MALFORMED);
        }
        extensions(attributes)?;
        let gs2_header = &text[..text.len() - bare.len()];
        Ok(Self { gs2_header, authzid, bare, username, nonce })
    }
}

/// client-final-message.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct ClientFinal<'a> {
    pub channel_binding: Vec<u8>,
    pub nonce: &'a str,
    /// The message up to the comma before its proof: what is signed of it.
    pub without_proof: &'a str,
    pub proof: Key,
}

impl<'a> ClientFinal<'a> {
    pub fn parse(data: &'a [u8]) -> Result<Self, Failure> {
        let (without_proof, proof) = text(data)?.rsplit_once(",p=").ok_or(MALFORMED)?;
        let proof = BASE64.decode(proof).ok().and_then(|proof| Key::try_from(proof).ok()).ok_or(MALFORMED)?;
        let mut attributes = without_proof.split(',');
        let channel_binding = BASE64.decode(attribute(attributes.next(), "c=")?).map_err(|_| MALFORMED)?;
        let nonce = attribute(attributes.next(), "r=")?;
        extensions(attributes)?;
        Ok(Self { channel_binding, nonce, without_proof, proof })
    }
}

fn text(data: &[u8]) -> Result<&str, Failure> {
    match std::str::from_utf8(data) {
        Ok(text) if text.len() <= MESSAGE_MAX_BYTES => Ok(text),
        _ => Err(MALFORMED),
    }
}

/// The value of the attribute that must stand here; never empty.
fn attribute<'a>(part: Option<&'a str>, prefix: &str) -> Result<&'a str, Failure> {
    part.and_then(|part| part.strip_prefix(prefix)).filter(|value| !value.is_empty()).ok_or(MALFORMED)
}

/// A saslname, in which `=2C` and `=3D` stand for comma and equals sign.
fn name(encoded: &str) -> Result<String, Failure> {
    let mut parts = encoded.split('=');
    let mut name = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let (character, rest) = match part.split_at_checked(2) {
            Some(("2C", rest)) => (',', rest),
            Some(("3D", rest)) => ('=', rest),
            _ => return Err(MALFORMED),
        };
        name.push(character);
        name.push_str(rest);
    }
    Ok(name)
}

/// Optional extensions are passed over, but must be attributes.
fn extensions<'a>(attributes: impl Iterator<Item = &'a str>) -> Result<(), Failure> {
    for attribute in attributes {
        match attribute.as_bytes() {
            [b'm', b'=', ..] => return Err(EXTENSION),
            [letter, b'=', _, ..] if letter.is_ascii_alphabetic() => {}
            _ => return Err(MALFORMED),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn first(text: &str) -> Result<ClientFirst<'_>, Failure> {
        ClientFirst::parse(text.as_bytes())
    }

    #[test]
    fn first_messages() {
        let plain = first("n,,n=user,r=abc").unwrap();
        assert_eq!((plain.gs2_header, plain.bare), ("n,,", "n=user,r=abc"));
        assert_eq!((plain.username.as_str(), plain.nonce, plain.authzid), ("user", "abc", None));
        let full = first("y,a=a=2Cb,n==3D=2C,r=!~,x=1,y=a=b").unwrap();
        assert_eq!((full.gs2_header, full.bare), ("y,a=a=2Cb,", "n==3D=2C,r=!~,x=1,y=a=b"));
        assert_eq!((full.username.as_str(), full.authzid.as_deref()), ("=,", Some("a,b")));
    }

    #[test]
    fn first_messages_that_are_refused() {
        for (text, failure) in [
            ("", MALFORMED),
            ("n", MALFORMED),
            ("n,", MALFORMED),
            ("n,,", MALFORMED),
            ("n,,n=user", MALFORMED),
            ("n,,n=,r=a", MALFORMED),
            ("n,,n=u,r=", MALFORMED),
            ("n,,r=a,n=u", MALFORMED),
            ("n,,n=u,r=a\u{e4}", MALFORMED),
            ("n,,n=u,r=a b", MALFORMED),
            ("n,,n=a=b,r=a", MALFORMED),
            ("n,,n=a=2,r=a", MALFORMED),
            ("n,,n=a=2c,r=a", MALFORMED),
            ("n,a=,n=u,r=a", MALFORMED),
            ("n,b=x,n=u,r=a", MALFORMED),
            ("x,,n=u,r=a", MALFORMED),
            ("N,,n=u,r=a", MALFORMED),
            ("n,,n=u,r=a,", MALFORMED),
            ("n,,n=u,r=a,x", MALFORMED),
            ("n,,n=u,r=a,1=x", MALFORMED),
            ("p=tls-unique,,n=u,r=a", CHANNEL_BINDING),
            ("n,,m=x,n=u,r=a", EXTENSION),
            ("n,,n=u,r=a,m=x", EXTENSION),
        ] {
            assert_eq!(first(text), Err(failure), "{text:?}");
        }
        assert_eq!(ClientFirst::parse(b"n,,n=\xFF,r=a"), Err(MALFORMED));
        let long = format!("n,,n=u,r={}", "a".repeat(CLIENT_NONCE_MAX_BYTES + 1));
        assert_eq!(first(&long), Err(MALFORMED));
        assert!(first(&long[..long.len() - 1]).is_ok());
        assert_eq!(first(&format!("n,,n={},r=a", "u".repeat(MESSAGE_MAX_BYTES))), Err(MALFORMED));
    }

    #[test]
    fn final_messages() {
        let proof = BASE64.encode([7; 32]);
        let text = format!("c=biws,r=ab,x=1,p={proof}");
        let parsed = ClientFinal::parse(text.as_bytes()).unwrap();
        assert_eq!((parsed.channel_binding.as_slice(), parsed.nonce), (&b"n,,"[..], "ab"));
        assert_eq!((parsed.without_proof, parsed.proof), ("c=biws,r=ab,x=1", [7; 32]));
        for text in [
            String::new(),
            "c=biws,r=ab".to_owned(),
            "c=biws,r=ab,p=".to_owned(),
            format!("c=biws,r=ab,p={}", BASE64.encode([7; 31])),
            format!("c=biws,r=ab,p={proof},x=1"),
            format!("c=b!ws,r=ab,p={proof}"),
            format!("r=ab,c=biws,p={proof}"),
            format!("c=biws,p={proof}"),
            format!("c=biws,r=,p={proof}"),
            format!("c=biws,r=ab,,p={proof}"),
        ] {
            assert_eq!(ClientFinal::parse(text.as_bytes()), Err(MALFORMED), "{text}");
        }
        let mandatory = format!("c=biws,r=ab,m=1,p={proof}");
        assert_eq!(ClientFinal::parse(mandatory.as_bytes()), Err(EXTENSION));
    }
}
