"""What Glance and the service say of each other's images."""
import datetime

from glance_store_predella import cluster as clusters
from glance_store_predella import relocate

# Between the end of an upload and Glance's row for it.
YOUNG_SECONDS = 3600
# The driver gives an upload up after predella_write_timeout, 60 s.
QUIET_SECONDS = 300


def _seconds_since(moment, now):
    made = datetime.datetime.fromisoformat(
        moment.rstrip('Z').split('.')[0] + '+00:00')
    return (now - made).total_seconds()


def _judge(places, images, glance, others):
    """(whether data of ours is this image's, what is wrong with a row)."""
    referred, wrong = False, None
    image = images.get(glance.id)
    for location in glance.locations:
        if relocate.key_of(location) is not None:
            if relocate.is_here(location, image):
                referred = True
                if image.health == 'LOST':
                    wrong = 'its data is lost'
            elif not location.pending and not others.has(location):
                what = ('this id has other data here' if image is not None
                        else 'no such image here')
                wrong = f'{what}, of store {relocate.store_of(location)}'
            continue
        path = relocate.path_of(location.value)
        mount = path and places.mount_of(path, glance.id)
        # Adopted, and not yet relocated; or Glance knows the file by a path
        # that says nothing here, or the row is encrypted. It is not called a
        # leak: whoever removes one would lose an image.
        if image is not None and ('://' not in location.value or (
                path is not None and (mount is None or
                                      mount in image.mounts))):
            referred = True
    whys = [why for why in (wrong, relocate.one_copy(glance, image)) if why]
    return referred, '; '.join(whys)


class Audit:
    """Goes once through Glance's images; `others` are the OtherClusters, `look`
    may be a files.Looker."""

    def __init__(self, places, images, others, look=None):
        self.pending = 0
        self._others = others
        self._places = places
        self._images = images
        self._look = look
        self._referred = set()
        self._suspects = []

    def compare(self, glance_images):
        for glance in glance_images:
            self.pending += (glance.status == 'pending_delete' or
                             any(one.pending for one in glance.locations))
            self._others.count(glance, self._images.get(glance.id))
            referred, wrong = _judge(self._places, self._images, glance,
                                     self._others)
            if referred:
                self._referred.add(glance.id)
            if wrong:
                self._suspects.append(glance.id)
            if self._look is not None:
                self._look.look(glance)

    def leaked(self, now, young_seconds=YOUNG_SECONDS):
        """Data that no row refers to."""
        return [image for name, image in sorted(self._images.items())
                if name not in self._referred and
                _seconds_since(image.created, now) >= young_seconds]

    def missing(self, source, list_again):
        """[(image, why)]: rows whose data is not here, or is that of another
        row, then and now."""
        if not self._suspects:
            return []
        # Uploads and deletes went on between the two lists.
        images, found = list_again(), []
        for glance in source.of(self._suspects).values():
            _, why = _judge(self._places, images, glance, self._others)
            if why:
                found.append((glance, why))
        return found


def still(source, findings):
    """Those whose row is still there: images are deleted meanwhile."""
    with_row = [one for one in findings if one.row is not None]
    now = source.of({one.image for one in with_row})
    rows = {location.row for image in now.values()
            for location in image.locations if not location.pending}
    return [one for one in findings if one.row is None or one.row in rows]


def quiet(uploads, source, now, quiet_seconds=QUIET_SECONDS):
    """[(image, upload, mount, heard, ends, status in Glance)] of uploads that
    were not heard of for so long, and how many of them nobody goes on with."""
    out, given_up = [], 0
    for one in uploads:
        heard = one.get('liveTime') or one['createTime']
        seconds = _seconds_since(heard, now)
        if seconds < quiet_seconds:
            continue
        given_up += seconds >= QUIET_SECONDS
        image = clusters.bare(one['image'])
        glance = source.of([image]).get(image)
        out.append((image, clusters.bare(one['name']),
                    clusters.bare(one['target']['mount']), heard,
                    one['expireTime'],
                    glance.status if glance else 'not there'))
    return out, given_up


def _status(glance):
    return f'{glance.status}, hidden' if glance.hidden else glance.status


def impact_rows(impact, glance_images):
    """(id, bytes, copies elsewhere, status, owner, name) for each image."""
    for one in impact['images']:
        image = one['name'].rsplit('/', 1)[-1]
        glance = glance_images.get(image)
        yield (image, one['sizeBytes'], str(one['otherReadableCopies']),
               _status(glance) if glance else '-',
               glance.owner or '-' if glance else '-',
               glance.name or '-' if glance else 'not in Glance')


def impact_json(impact, glance_images):
    """The same as the service has it, with what Glance has of each image."""
    def of_glance(name):
        glance = glance_images.get(clusters.bare(name))
        return glance and {'name': glance.name, 'owner': glance.owner,
                           'status': glance.status, 'hidden': glance.hidden}
    return {**impact, 'images': [
        {**one, 'glance': of_glance(one['name'])} for one in impact['images']]}
