// Package linux is the recipe of everything the tests need of Linux: Debian's
// stock cloud kernel and the initial file systems to boot it with.
//
// # What
//
//   - EnsureTools: the one list of host programs and the Debian packages that
//     hold them.
//   - Kernel: Debian's linux-image-cloud-amd64 as vmlinuz (bzImage), vmlinux
//     (uncompressed ELF with a PVH note) and modules, cached by version.
//   - Tree: an initramfs written as a reproducible cpio archive.
//   - WriteGuest: the Linux guest that Fineline's own tests boot.
//   - Packages: a Debian package unpacked with the libraries it needs; Tree.AddDynamic takes programs from it.
//   - WriteRedisGuest: the Linux guest with redis-server and what tracks it.
//
// # The Linux guest: a contract of files
//
// Tests that boot Linux look for a directory named by FINELINE_LINUX_DIR:
//
//	vmlinuz          Debian's bzImage, as shipped
//	vmlinux          the ELF inside it, entered by its PVH note
//	initramfs.cpio   busybox, /init and memcheck
//	initramfs-redis.cpio   busybox, /init, redis-server and what tracks it (linuximage -redis)
//
// A test skips, and says so, when the variable is not set. The svm tier sets
// it; elsewhere `go run ./images/linux/cmd/linuximage -o DIR` writes it.
//
// The kernel command line should hold `console=ttyS0` and the value of the
// environment variable FINELINE_LINUX_CMDLINE, and may hold:
//
//	fineline.test=shell      busybox sh on ttyS0 for programs: prompt "fineline# ", no echo, no line editor
//	fineline.test=memcheck   memcheck on ttyS0, then power off when it ends
//	fineline.test=redis      (initramfs-redis.cpio) redis-server under load, tracked by fineline-guest; then power off
//	fineline.test=poweroff   power off at once, by ACPI S5
//	fineline.test=reboot     reboot at once; reboot=acpi|kbd|triple selects how
//	(none of these)          busybox sh on ttyS0 for people, with echo and line editor
//	fineline.mib=N           MiB that memcheck keeps rewriting, default 8
//	fineline.keys=N          keys that redisload sets, default 10000
//	fineline.windows=N       windows of each order of keys, default 3
//	fineline.window=D        length of a window, default 1s
//	fineline.job=compress    memcheck has known data compressed and unpacked all the time, and compares checksums
//	fineline.rest=D          pause of memcheck's workers between rounds, default 0s
//
// In shell and memcheck lines end with LF alone. A Linux kernel on AMD says at boot
// that the TSC is unstable, since it trusts only Intel's; it then uses kvm-clock.
//
// In every mode /init first prints one line which tests may wait for:
//
//	fineline-guest: ready mode=MODE cpus=N uptime=SECONDS
//
// In redis mode a line "track order=ORDER" comes before the windows of that order, one JSON object each, and
// "track status=N" with fineline-guest's exit code after them. The order sequential has the device to itself, random
// goes through the daemon. Then, as a user without rights, own is guest/track/example, and foreign the
// attempt to track redis-server.
//
// What memcheck prints and reads is described in package memcheck.
//
// # Why so
//
// The package's version is asked from apt at run time: Debian removes old
// kernels from its archive at every security update, so a version in the tree
// would stop working within weeks. When apt cannot answer or fetch, the newest
// kernel in the cache is used and a warning says so.
//
// The cache (FINELINE_CACHE, or fineline in the user's cache directory) is
// filled under a file lock into a temporary directory that is then renamed:
// a directory that has its final name is complete, and readers take no lock.
//
// The guest's /init is a shell script: it is the first thing to read when a
// boot goes wrong, and busybox starts before a Go program would.
//
// # Rejected
//
//   - Installing the kernel package: it needs root and changes the host.
//   - Module lists with their dependencies written down: they differ by kernel
//     version, so they are read from each module's own .modinfo section.
//   - A compressed initramfs: inside an emulated machine decompression costs
//     far more than reading the bytes.
package linux
