//! Heartbeat bodies to bytes and back: JSON, then zstd with a hard bound on the decoded size.

use serde::{Serialize, de::DeserializeOwned};

use super::limits::MAX_DECODED_BODY_BYTES;

/// zstd level: 3 is three times as quick as gzip at the same size; higher levels gain nothing on
/// bodies of a few hundred bytes.
const ZSTD_LEVEL: i32 = 3;

/// Compresses bodies; keeps its context between calls.
pub struct Encoder {
    zstd: zstd::bulk::Compressor<'static>,
    json: Vec<u8>,
}

/// Decompresses bodies; keeps its context between calls.
pub struct Decoder {
    zstd: zstd::bulk::Decompressor<'static>,
}

/// Why a body could not be written.
#[derive(Debug, thiserror::Error)]
pub enum EncodeError {
    /// A value has no JSON form.
    #[error("the body has no JSON form")]
    Json(#[source] serde_json::Error),
    /// zstd failed.
    #[error("the body can't be compressed")]
    Zstd(#[source] std::io::Error),
}

/// Why a body could not be read.
#[derive(Debug, thiserror::Error)]
pub enum DecodeError {
    /// Larger than [`MAX_DECODED_BODY_BYTES`] when decompressed.
    #[error("the body is larger than {MAX_DECODED_BODY_BYTES} bytes when decompressed")]
    TooLarge,
    /// Not zstd.
    #[error("the body is not zstd: {0}")]
    Zstd(#[source] std::io::Error),
    /// Not the JSON that was expected.
    #[error("{0}")]
    Json(#[source] serde_json::Error),
}

impl std::fmt::Debug for Encoder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Encoder").finish_non_exhaustive()
    }
}

impl std::fmt::Debug for Decoder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Decoder").finish_non_exhaustive()
    }
}

impl Encoder {
    /// A compressor with a fresh context.
    pub fn new() -> Result<Self, EncodeError> {
        let zstd = zstd::bulk::Compressor::new(ZSTD_LEVEL).map_err(EncodeError::Zstd)?;
        Ok(Self {
            zstd,
            json: Vec::new(),
        })
    }

    /// `value` as compressed JSON.
    pub fn encode<T: Serialize>(&mut self, value: &T) -> Result<Vec<u8>, EncodeError> {
        self.json.clear();
        serde_json::to_writer(&mut self.json, value).map_err(EncodeError::Json)?;
        self.zstd.compress(&self.json).map_err(EncodeError::Zstd)
    }
}

impl Decoder {
    /// A decompressor with a fresh context.
    pub fn new() -> Result<Self, DecodeError> {
        let zstd = zstd::bulk::Decompressor::new().map_err(DecodeError::Zstd)?;
        Ok(Self { zstd })
    }

    /// Reads compressed JSON. Memory is bounded by [`MAX_DECODED_BODY_BYTES`] whatever the body
    /// claims about itself.
    pub fn decode<T: DeserializeOwned>(&mut self, body: &[u8]) -> Result<T, DecodeError> {
        let json = self.decompress(body)?;
        serde_json::from_slice(&json).map_err(DecodeError::Json)
    }

    /// The JSON in a compressed body.
    pub fn decompress(&mut self, body: &[u8]) -> Result<Vec<u8>, DecodeError> {
        let claimed = zstd::zstd_safe::get_frame_content_size(body).ok().flatten();
        let capacity = match claimed {
            Some(size) if size > MAX_DECODED_BODY_BYTES as u64 => {
                return Err(DecodeError::TooLarge);
            }
            Some(size) => size as usize,
            None => MAX_DECODED_BODY_BYTES,
        };
        self.zstd.decompress(body, capacity).map_err(|error| {
            // The bulk interface reports a too small destination only by its text.
            if error.to_string().contains("too small") {
                DecodeError::TooLarge
            } else {
                DecodeError::Zstd(error)
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn round_trip_and_context_reuse() {
        let mut encoder = Encoder::new().unwrap();
        let mut decoder = Decoder::new().unwrap();
        for n in 0..3 {
            let body = encoder.encode(&vec![n; 100]).unwrap();
            assert_eq!(decoder.decode::<Vec<i32>>(&body).unwrap(), vec![n; 100]);
        }
    }

    #[test]
    fn a_bomb_is_refused_whether_or_not_it_states_its_size() {
        let bomb = vec![b' '; MAX_DECODED_BODY_BYTES + 1];
        let stated = zstd::bulk::compress(&bomb, 3).unwrap();
        let mut writer = zstd::stream::write::Encoder::new(Vec::new(), 3).unwrap();
        std::io::Write::write_all(&mut writer, &bomb).unwrap();
        let unstated = writer.finish().unwrap();
        let mut decoder = Decoder::new().unwrap();
        for body in [stated, unstated] {
            assert!(body.len() < 10_000);
            let result = decoder.decode::<Vec<i32>>(&body);
            assert!(matches!(result, Err(DecodeError::TooLarge)), "{result:?}");
        }
    }

    #[test]
    fn garbage_is_not_zstd() {
        let result = Decoder::new()
            .unwrap()
            .decode::<Vec<i32>>(b"{\"not\": \"zstd\"}");
        assert!(matches!(result, Err(DecodeError::Zstd(_))), "{result:?}");
    }
}
