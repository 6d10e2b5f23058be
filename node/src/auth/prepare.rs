//! One form for names and passwords that people take for the same: SASLprep [RFC 4013].

/// Why a text cannot be a user name or a password.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotPrepared {
    #[error("is empty")]
    Empty,
    #[error("has characters that SASLprep does not allow, such as control characters")]
    Prohibited,
}

/// The form of a user name or password that is compared and hashed.
///
/// # Errors
/// Nothing is left of it, or a character is not allowed.
pub fn prepare(text: &str) -> Result<String, NotPrepared> {
    let prepared = stringprep::saslprep(text).map_err(|_| NotPrepared::Prohibited)?;
    if prepared.is_empty() { Err(NotPrepared::Empty) } else { Ok(prepared.into_owned()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The examples of RFC 4013, section 3.
    #[test]
    fn known_answers() {
        for (text, prepared) in [
            ("I\u{AD}X", Ok("IX")),
            ("user", Ok("user")),
            ("USER", Ok("USER")),
            ("\u{AA}", Ok("a")),
            ("\u{2168}", Ok("IX")),
            ("\u{7}", Err(NotPrepared::Prohibited)),
            ("\u{627}\u{31}", Err(NotPrepared::Prohibited)),
            ("", Err(NotPrepared::Empty)),
            ("\u{AD}", Err(NotPrepared::Empty)),
            ("a\nb", Err(NotPrepared::Prohibited)),
            ("a\u{A0}b", Ok("a b")),
        ] {
            assert_eq!(prepare(text), prepared.map(str::to_owned), "{text:?}");
        }
    }
}
