//! A hash in words, to be compared by voice.

/// One word for each value of a byte, in order; short, common, and unlike each other.
#[rustfmt::skip]
const WORDS: [&str; 256] = [
    "acorn", "actor", "agent", "album", "alley", "amber", "anchor", "apple", "apron", "arrow",
    "aspen", "atlas", "attic", "autumn", "avenue", "bacon", "badge", "baker", "bamboo", "banjo",
    "barrel", "basil", "basket", "beacon", "beaver", "bishop", "blanket", "blossom", "bottle",
    "branch", "brick", "bridge", "bronze", "bucket", "button", "cabin", "cactus", "camel",
    "candle", "canyon", "carbon", "carpet", "castle", "cedar", "cellar", "chapel", "cherry",
    "chimney", "cider", "circus", "clover", "cobalt", "coffee", "comet", "copper", "coral",
    "corner", "cotton", "cousin", "cradle", "crater", "crayon", "cricket", "crown", "crystal",
    "cuckoo", "curtain", "dagger", "daisy", "dancer", "desert", "diamond", "dinner", "doctor",
    "dolphin", "donkey", "dragon", "drummer", "eagle", "easel", "echo", "elbow", "ember",
    "engine", "envoy", "fabric", "falcon", "farmer", "feather", "fiddle", "finger", "flannel",
    "flute", "forest", "fossil", "fountain", "galaxy", "garden", "garlic", "giant", "ginger",
    "glacier", "globe", "goblet", "gospel", "grape", "gravel", "guitar", "hammer", "harbor",
    "hazel", "helmet", "hermit", "hockey", "honey", "horizon", "hunter", "igloo", "indigo",
    "insect", "island", "ivory", "jacket", "jaguar", "jasmine", "jelly", "jersey", "jewel",
    "jigsaw", "jungle", "kernel", "kettle", "kidney", "kitchen", "kitten", "ladder", "lagoon",
    "lantern", "laurel", "lemon", "leopard", "lily", "linen", "lizard", "lobster", "locket",
    "magnet", "mango", "maple", "marble", "market", "meadow", "melon", "mercy", "meteor",
    "mirror", "mitten", "monkey", "morning", "mosaic", "mountain", "muffin", "napkin", "needle",
    "nickel", "noodle", "nutmeg", "oasis", "ocean", "olive", "onion", "orbit", "orchid", "otter",
    "oyster", "paddle", "palace", "panther", "parade", "parrot", "pebble", "pencil", "pepper",
    "piano", "picnic", "pigeon", "pillow", "pirate", "planet", "plumber", "pocket", "poem",
    "polar", "pony", "potato", "pumpkin", "puzzle", "quarry", "quilt", "rabbit", "radar",
    "raisin", "raven", "ribbon", "river", "robin", "rocket", "saddle", "saffron", "salmon",
    "sandal", "satin", "school", "shadow", "shelter", "silver", "siren", "sofa", "spider",
    "spiral", "squirrel", "stable", "sunset", "tailor", "tango", "teapot", "temple", "thistle",
    "thunder", "tiger", "timber", "tomato", "tractor", "trumpet", "tulip", "tunnel", "turkey",
    "turtle", "umbrella", "uncle", "unicorn", "valley", "vanilla", "velvet", "viking", "vinegar",
    "violin", "volcano", "waffle", "walnut", "walrus", "willow", "window", "winter", "wizard",
    "zebra",
];

/// Writes one word for each of `bytes`.
pub(super) fn words(bytes: &[u8]) -> String {
    let word = |byte: &u8| WORDS.get(usize::from(*byte)).copied().unwrap_or_default();
    bytes.iter().map(word).collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_byte_has_a_word_of_its_own() {
        assert!(WORDS.is_sorted());
        assert!(WORDS.windows(2).all(|pair| pair[0] != pair[1]));
        for word in WORDS {
            let is_short = (4..=8).contains(&word.len());
            assert!(
                is_short && word.bytes().all(|byte| byte.is_ascii_lowercase()),
                "{word}"
            );
        }
        assert_eq!(words(&[0, 255]), "acorn zebra");
    }
}
