# ext4 and XFS: a tree is copied, read back after a remount, and the file system is checked.
. /share/lib.sh
attach $TARGET
modprobe -a ext4 xfs 2>/dev/null
tree() { (cd "$1" && find . -type f -print0 | sort -z | xargs -0 md5sum); }
mkdir -p /mnt/fs
SOURCE=/usr/share
tree $SOURCE >/tmp/expected
echo "$(wc -l </tmp/expected) files, $(du -sm $SOURCE | cut -f1) MiB"
exercise() { # NAME MKFS-COMMAND... ; the check command is in CHECK
  name=$1
  shift
  check "$name: mkfs" "$@" "$DISK"
  check "$name: mount" mount -t "$name" "$DISK" /mnt/fs
  check "$name: copy" cp -a $SOURCE /mnt/fs/tree
  tree /mnt/fs/tree >/tmp/actual
  check "$name: sums before the unmount" cmp /tmp/expected /tmp/actual
  check "$name: unmount" umount /mnt/fs
  check "$name: check" $CHECK "$DISK"
  echo 3 >/proc/sys/vm/drop_caches
  check "$name: mount again" mount -t "$name" "$DISK" /mnt/fs
  tree /mnt/fs/tree >/tmp/actual
  check "$name: sums after the remount" cmp /tmp/expected /tmp/actual
  check "$name: remove half of it" rm -rf /mnt/fs/tree/doc /mnt/fs/tree/locale
  check "$name: last unmount" umount /mnt/fs
  check "$name: check again" $CHECK "$DISK"
}
CHECK='e2fsck -fn' exercise ext4 mkfs.ext4 -q -F
CHECK='xfs_repair -n' exercise xfs mkfs.xfs -q -f
check "logout" logout $TARGET
clean_log
