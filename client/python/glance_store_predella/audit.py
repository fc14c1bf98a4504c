"""What Glance and the service say of each other's images."""
import datetime

from glance_store_predella import cluster as clusters
from glance_store_predella import relocate

# Between the end of an upload and Glance's row for it.
YOUNG_SECONDS = 3600


def _age(image, now):
    made = datetime.datetime.fromisoformat(
        image['createTime'].rstrip('Z').split('.')[0] + '+00:00')
    return (now - made).total_seconds()


def compare(places, images, glance_images, now,
            young_seconds=YOUNG_SECONDS):
    """(data that no row refers to, [(image, what is wrong with a row)])."""
    referred = set()
    missing = []
    for glance in glance_images.values():
        twice = relocate.one_copy(glance, images.get(glance.id))
        if twice is not None:
            missing.append((glance, twice))
        for location in glance.locations:
            image = images.get(glance.id)
            if location.value.startswith('predella://'):
                key = location.value.rsplit('/', 1)[-1]
                if image is not None and image['locationKey'] == key:
                    referred.add(glance.id)
                    if image['health'] == 'IMAGE_HEALTH_LOST':
                        missing.append((glance, 'its data is lost'))
                elif image is not None:
                    missing.append((glance, 'this id has other data here'))
                else:
                    missing.append((glance, 'no such image here'))
                continue
            path = relocate.path_of(location.value)
            mount = path and places.mount_of(path, glance.id)
            if path is not None and image is not None and (
                    mount is None or mount in clusters.mounts_of(image)):
                # Adopted, and not yet relocated; or Glance knows the file by a
                # path that says nothing here. It is not called a leak: whoever
                # removes one would lose an image.
                referred.add(glance.id)
    leaked = [image for name, image in sorted(images.items())
              if name not in referred and _age(image, now) >= young_seconds]
    return leaked, missing


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
