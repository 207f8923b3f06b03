"""The forms of lenses by the name that `lens.json` has for them. A file of another form is refused."""

from alens.lens.maps import AffineMaps, TranslatedMaps
from alens.lens.unembedded_maps import UnembeddedMaps

FORMS: dict[str, type[AffineMaps] | type[TranslatedMaps] | type[UnembeddedMaps]] = {
    maps.form: maps for maps in (AffineMaps, TranslatedMaps, UnembeddedMaps)
}

AFFINE_FORMS = (AffineMaps.form, UnembeddedMaps.form)
"""The forms whose lenses have a weight and a bias."""

WITH_UNEMBEDDING = (TranslatedMaps.form, UnembeddedMaps.form)
"""The forms whose lenses need the unembedding beside them."""
