//! Objects as compact bytes: their JSON, compressed against earlier objects of the kind, from which it differs little.

use lz4_flex::block::{compress_prepend_size_with_dict, decompress_size_prepended_with_dict};

/// Objects of a kind that others are compressed against.
const SAMPLES: usize = 4;
/// Longest sample.
const SAMPLE_BYTES: usize = 8 << 10;
/// An object that needs more than this share of its size, in percent, resembles no sample: it becomes one.
const UNLIKE: usize = 50;

/// An object as compact bytes.
#[derive(Clone, Debug)]
pub(crate) struct Packed {
    sample: u8,
    bytes: Box<[u8]>,
}

impl Packed {
    /// Bytes it takes.
    pub(crate) fn len(&self) -> usize {
        self.bytes.len()
    }
}

/// Packs and unpacks the objects of one kind.
#[derive(Clone, Debug, Default)]
pub(crate) struct Packer {
    samples: Vec<Box<[u8]>>,
}

impl Packer {
    /// An object's JSON as compact bytes.
    pub(crate) fn pack(&mut self, json: &[u8]) -> Packed {
        let mut best: Option<Packed> = None;
        for (at, sample) in self.samples.iter().enumerate() {
            let bytes = compress_prepend_size_with_dict(json, sample).into_boxed_slice();
            let like = bytes.len() * 100 <= json.len() * UNLIKE;
            if best.as_ref().is_none_or(|best| bytes.len() < best.len()) {
                best = Some(Packed { sample: u8::try_from(at).unwrap_or_default(), bytes });
            }
            if like {
                break;
            }
        }
        let like = |packed: &Packed| packed.len() * 100 <= json.len() * UNLIKE;
        match best {
            Some(packed) if like(&packed) || self.samples.len() == SAMPLES => packed,
            _ => {
                let sample = json[..json.len().min(SAMPLE_BYTES)].into();
                let bytes = compress_prepend_size_with_dict(json, &json[..json.len().min(SAMPLE_BYTES)]);
                self.samples.push(sample);
                let at = self.samples.len() - 1;
                Packed { sample: u8::try_from(at).unwrap_or_default(), bytes: bytes.into_boxed_slice() }
            }
        }
    }

    /// The JSON again.
    pub(crate) fn unpack(&self, packed: &Packed) -> Vec<u8> {
        let sample = self.samples.get(usize::from(packed.sample)).map_or(&[][..], |sample| sample);
        let json = decompress_size_prepended_with_dict(&packed.bytes, sample);
        json.expect("what was packed here, with this sample, unpacks")
    }
}

#[cfg(test)]
mod tests {
    use knoll_api::{Resource, serving::Revision};

    use super::*;

    fn revision(name: &str) -> Revision {
        serde_json::from_value(serde_json::json!({
            "metadata": {"namespace": "default", "name": name, "uid": format!("0000-{name}"), "labels": {"team": "a"}},
            "spec": {"containerConcurrency": 0, "timeoutSeconds": 300, "containers": [
                {"name": "user-container", "image": "example.com/hello", "ports": [{"containerPort": 8080}]}]},
            "status": {"observedGeneration": 1, "conditions": [{"type": "Ready", "status": "True"}]},
        }))
        .expect("a revision")
    }

    #[test]
    fn an_object_comes_back_as_it_was_and_takes_little_room_beside_its_like() {
        let mut packer = Packer::default();
        let objects: Vec<Revision> = (0..50).map(|at| revision(&format!("hello-{at:05}"))).collect();
        let packed: Vec<Packed> = objects.iter().map(|object| packer.pack(&object.to_bytes())).collect();
        for (object, packed) in objects.iter().zip(&packed) {
            assert_eq!(packer.unpack(packed), object.to_bytes());
        }
        let plain = objects[7].to_bytes().len();
        assert!(packed[7].len() * 5 < plain, "{} of {plain}", packed[7].len());
        assert_eq!(packer.samples.len(), 1);
    }

    #[test]
    fn what_resembles_nothing_is_kept_too_and_samples_have_a_bound() {
        let mut packer = Packer::default();
        for at in 0_u64..40 {
            let mut object = revision("odd");
            // Text that repeats nothing.
            let noise: String =
                (0..400_u64).map(|i| char::from(33 + ((i * i * 7 + at * 31 + i * at) % 90) as u8)).collect();
            object.metadata.annotations = Some([(format!("note-{at}"), noise.repeat(1 + (at as usize % 30)))].into());
            let packed = packer.pack(&object.to_bytes());
            assert_eq!(packer.unpack(&packed), object.to_bytes());
        }
        assert!(packer.samples.len() <= SAMPLES);
    }
}
