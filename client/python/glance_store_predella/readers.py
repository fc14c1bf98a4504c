"""Whether the agent of a mount may read a file: by owner, mode and access control
list (acl(5)), as the kernel judges it when the agent opens it."""
import os
import pwd
import stat
import struct

_ACL = 'system.posix_acl_access'
_VERSION = 2
_ENTRY = struct.Struct('<HHI')  # tag, permissions, id
_USER, _GROUP_OBJ, _GROUP, _MASK = 0x02, 0x04, 0x08, 0x10
_READ = 4


def _acl_of(path):
    """[(tag, permissions, id)] of a file that has more than a mode, else []."""
    try:
        value = os.getxattr(path, _ACL, follow_symlinks=False)
    except OSError:
        return []  # none, or its file system knows none
    if len(value) < 4 or struct.unpack_from('<I', value)[0] != _VERSION:
        return []
    end = len(value) - (len(value) - 4) % _ENTRY.size
    return list(_ENTRY.iter_unpack(value[4:end]))


def mode_of(path, info):
    """As ls -l has it, with the + of a list."""
    return (f'mode {stat.S_IMODE(info.st_mode):04o}'
            f'{"+ (getfacl)" if _acl_of(path) else ""} of {info.st_uid}:'
            f'{info.st_gid}')


class Reader:
    """Who the agent of a mount is, as its files see it."""

    def __init__(self, mount):
        self.user, self.groups, self._all = _of_process(
            mount.get('agentPid')) or _of_directory(mount['path'])

    def may_read(self, path, info):
        if self._all:
            return True
        if info.st_uid == self.user:
            return bool(info.st_mode & stat.S_IRUSR)
        # The kernel leaves a list out of account whose mask takes all away.
        if info.st_mode & stat.S_IRWXG and (acl := _acl_of(path)):
            return self._by_acl(acl, info)
        if info.st_gid in self.groups:
            return bool(info.st_mode & stat.S_IRGRP)
        return bool(info.st_mode & stat.S_IROTH)

    def _by_acl(self, acl, info):
        """Of one who is not the owner."""
        mask = next((may for tag, may, _ in acl if tag == _MASK), _READ)
        for tag, may, number in acl:
            if tag == _USER and number == self.user:
                return bool(may & mask & _READ)
        groups = [may for tag, may, number in acl
                  if tag == _GROUP_OBJ and info.st_gid in self.groups or
                  tag == _GROUP and number in self.groups]
        if groups:
            return any(may & mask & _READ for may in groups)
        return bool(info.st_mode & stat.S_IROTH)


# Of capability(7): DAC_OVERRIDE and DAC_READ_SEARCH.
_READS_ALL = 1 << 1 | 1 << 2


def _of_process(pid):
    """(user, groups, whether it reads all); None where it is not here."""
    try:
        with open(f'/proc/{pid}/comm', encoding='ascii') as stream:
            if stream.read().strip() != 'predella-agent':
                return None
        with open(f'/proc/{pid}/status', encoding='ascii') as stream:
            fields = dict(line.rstrip('\n').split(':\t', 1)
                          for line in stream if ':\t' in line)
    except (OSError, ValueError):
        return None
    groups = {int(one) for one in fields['Groups'].split()}
    return (int(fields['Uid'].split()[3]),
            groups | {int(fields['Gid'].split()[3])},
            bool(int(fields['CapEff'], 16) & _READS_ALL))


def _of_directory(path):
    """The same by whose the label is."""
    own = os.path.join(path, '.predella')
    info = os.stat(own if os.path.exists(own) else path)
    groups = {info.st_gid}
    try:
        user = pwd.getpwuid(info.st_uid)
        groups.update(os.getgrouplist(user.pw_name, user.pw_gid))
    except KeyError:
        pass  # a number without a name has no groups besides
    return info.st_uid, groups, info.st_uid == 0
