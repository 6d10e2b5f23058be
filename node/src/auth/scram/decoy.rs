//! Users that do not exist look as if they did.

use std::fmt;

use super::verifier::Verifier;
use super::{Key, mac};
use crate::auth::Shape;

/// Makes a verifier for any name, always the same one, that no password fits: who asks for a user
/// that does not exist is challenged as if it did, and fails at the proof.
pub struct Decoys {
    key: Key,
}

impl Decoys {
    /// From a secret that must stay the same over restarts and on all nodes of a cluster, or a
    /// salt that changes would give the user away.
    pub fn new(secret: &[u8]) -> Self {
        Self { key: mac(secret, b"SCRAM verifiers of unknown users") }
    }

    /// The verifier of a user that does not exist.
    pub fn verifier(&self, name: &str, shape: Shape) -> Verifier {
        let part = |label: u8| {
            let mut input = vec![label];
            input.extend_from_slice(name.as_bytes());
            mac(&self.key, &input)
        };
        let salt = (2..=u8::MAX).flat_map(part).take(shape.salt_bytes).collect();
        Verifier::new(shape.iterations, salt, part(0), part(1))
    }
}

impl fmt::Debug for Decoys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Decoys(…)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_has_one_salt_per_secret() {
        let shape = Shape { iterations: 5000, salt_bytes: 40 };
        let one = Decoys::new(b"one").verifier("u", shape);
        assert_eq!((one.iterations(), one.salt().len()), (5000, 40));
        assert_eq!(one.salt(), Decoys::new(b"one").verifier("u", shape).salt());
        assert_ne!(one.salt(), Decoys::new(b"two").verifier("u", shape).salt());
        assert_ne!(one.salt(), Decoys::new(b"one").verifier("v", shape).salt());
        assert_ne!(one.salt()[..8], one.salt()[32..]);
    }
}
