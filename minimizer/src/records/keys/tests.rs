//! Which secrets are taken, and that no two keys are the same.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use super::{KeyError, Keys};

const HEX: &str = "000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f";

fn file(directory: &Path, contents: &[u8]) -> PathBuf {
    let path = directory.join("minimizer.key");
    fs::write(&path, contents).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
    path
}

fn known() -> Keys {
    let directory = tempfile::tempdir().unwrap();
    Keys::load(Some(&file(directory.path(), HEX.as_bytes()))).unwrap()
}

#[test]
fn a_secret_is_32_octets_or_64_digits() {
    let directory = tempfile::tempdir().unwrap();
    let raw = (0..32).collect::<Vec<u8>>();
    let forms = [raw, HEX.into(), format!("{HEX}\n").into(), format!("{}\r\n", HEX.to_uppercase()).into()];
    for form in forms {
        let keys = Keys::load(Some(&file(directory.path(), &form))).unwrap();
        assert!(keys.is_lasting());
        assert!(keys.epoch_key(1).unwrap() == known().epoch_key(1).unwrap());
    }
}

#[test]
fn what_is_no_secret_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    let refused = |contents: &[u8], cause: &str| {
        let error = Keys::load(Some(&file(directory.path(), contents))).unwrap_err().to_string();
        assert!(error.contains(cause) && error.contains("head -c 32 /dev/urandom"), "{error}");
    };
    refused(b"", "0 octets");
    refused(&[1; 31], "31 octets");
    refused(&[1; 33], "33 octets");
    refused(&HEX.as_bytes()[1..], "63 octets");
    refused(HEX.replace('f', "g").as_bytes(), "64 octets");
    refused(&[7; 32], "the same");
    refused("00".repeat(32).as_bytes(), "the same");
}

#[test]
fn a_secret_that_others_read_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    let path = file(directory.path(), HEX.as_bytes());
    fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
    assert!(matches!(Keys::load(Some(&path)), Err(KeyError::File(_))));
    fs::remove_file(&path).unwrap();
    assert!(matches!(Keys::load(Some(&path)), Err(KeyError::File(_))));
}

/// HKDF-SHA256 with the salt "minimizer master secret v1", and behind it the key of the epoch for preserved prefixes, computed by another implementation.
#[test]
fn derived_keys_stay_what_they_are() {
    let keys = known();
    let octets = |words: &[u64; 2]| words.iter().flat_map(|word| word.to_le_bytes()).collect::<Vec<_>>();
    let hex = |octets: &[u8]| octets.iter().map(|octet| format!("{octet:02x}")).collect::<String>();
    assert_eq!(hex(&octets(&keys.epoch_key(1_800_000_000).unwrap())), EPOCH);
    let recipient = keys.recipient("cert", 1_800_000_000, &keys.epoch_key(1_800_000_000).unwrap()).unwrap();
    assert_eq!(hex(&octets(&recipient.pseudonym)), PSEUDONYM);
    assert_eq!(hex(&*recipient.ipcrypt), IPCRYPT);
    assert_eq!(hex(&*recipient.crypto_pan), CRYPTO_PAN);
}

const EPOCH: &str = "62863564f0080567fcd036ecb6e048d7";
const PSEUDONYM: &str = "73aa10d1823634522b3599e6dd830aad";
const IPCRYPT: &str = "6778130bdf35c00ba4d395b6b2555beffb067640e552207760b5b7252d68f1f7";
const CRYPTO_PAN: &str = "1eb82f6680ab82c27ac4c587be6dffdc8934c99275bc91a737de89648a988f83";

#[test]
fn no_two_keys_are_the_same() {
    let keys = known();
    let epochs = [0, 1, 256, u64::MAX];
    let mut pseudonyms = Vec::new();
    let mut prefixes = Vec::new();
    for epoch in epochs {
        pseudonyms.push(*keys.epoch_key(epoch).unwrap());
    }
    for name in ["", "a", "aa", "b", "a\0", "recipient pseudonym"] {
        for epoch in epochs {
            let recipient = keys.recipient(name, epoch, &keys.epoch_key(epoch).unwrap()).unwrap();
            pseudonyms.push(*recipient.pseudonym);
            prefixes.extend([*recipient.ipcrypt, *recipient.crypto_pan]);
        }
    }
    let (all, all_prefixes) = (pseudonyms.len(), prefixes.len());
    pseudonyms.sort_unstable();
    pseudonyms.dedup();
    prefixes.sort_unstable();
    prefixes.dedup();
    assert_eq!((pseudonyms.len(), prefixes.len()), (all, all_prefixes));
}

#[test]
fn without_a_file_no_key_is_ever_the_same() {
    let (one, other) = (Keys::load(None).unwrap(), Keys::load(None).unwrap());
    assert!(!one.is_lasting());
    assert!(one.epoch_key(0).unwrap() != one.epoch_key(0).unwrap());
    assert!(one.recipient("a", 0, &[1, 2]).unwrap() == one.recipient("a", 0, &[1, 2]).unwrap());
    assert!(one.recipient("a", 0, &[1, 2]).unwrap() != other.recipient("a", 0, &[1, 2]).unwrap());
    // Preserved prefixes end with the random key of their epoch, whoever still has the secret of the process.
    let [first, second] = [[1, 2], [1, 3]].map(|key| one.recipient("a", 0, &key).unwrap());
    assert!(first.ipcrypt != second.ipcrypt && first.crypto_pan != second.crypto_pan);
}

#[test]
fn keys_are_not_printed() {
    let keys = known();
    let shown =
        format!("{keys:?} {:?} {:?}", keys.epoch_key(0).unwrap(), keys.recipient("a", 0, &[0; 2]).unwrap());
    assert_eq!(shown, "Keys { lasting: true, .. } Secret { .. } RecipientKeys { .. }");
}
