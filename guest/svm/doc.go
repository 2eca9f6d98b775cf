// Package svm runs Go tests on hardware KVM where the host has none: in an
// emulated machine whose CPU has AMD's SVM.
//
// # What
//
//   - Machine is QEMU with TCG, booted from Debian's cloud kernel and an
//     initramfs of ours that loads kvm-amd; commands run in it one by one.
//   - Suite compiles Go packages into test binaries, boots one Machine with all
//     of them and reports their results.
//   - agent is the /init of the machine, channel the wire to it.
//
// # What a test finds inside
//
//	FINELINE_TIER=svm
//	FINELINE_LINUX_DIR=/linux   vmlinuz, vmlinux, initramfs.cpio (see package linux)
//	FINELINE_LINUX_CMDLINE      kernel parameters that Linux guests need there
//	FINELINE_BIN=/bin/fineline  and any other programs asked for, in /bin
//	PATH=/bin HOME=/root TMPDIR=/tmp
//	/src/PACKAGE                the working directory, with the package's testdata
//	busybox, 127.0.0.1, /dev/kvm, /dev/shm; no Go toolchain, no disk, no network
//
// Each command has a process group of its own; what it leaves running in that
// group is killed before the next one starts.
//
// # Why so
//
// Results are frames on a virtio-serial port, read by `go tool test2json` on
// the host. The console is shared with the kernel, whose messages cut lines in
// two; it is kept in a file for people.
//
// Everything is in the initramfs: booting with 200 MiB more of it costs one
// second, while copying the same from a virtio disk costs two. One boot serves
// all packages.
//
// QEMU's settings were measured: the uncompressed vmlinux through its PVH note
// (a bzImage adds 20 s of emulated decompression); no ERMS and FSRM, as TCG
// runs `rep movsb` byte by byte and the kernel then uses words (copies take
// half the time); no mitigations; TSC as clock, because HPET reads leave the
// translated code and because KVM gives guests a stable kvmclock only if the
// host's own clock is the TSC.
//
// No process runs on the machine's CPU 0. In QEMU 7.2 an FXRSTOR or XRSTOR on any CPU
// clears IGNNE in env->hflags2 of the first CPU, without a lock (cpu_clear_ignne, from
// cpu_set_fpus). If that CPU enters or leaves a guest in the same moment, its NPT or GIF
// flag is lost: the guest is run without nested paging, or the kernel with it, or with
// interrupts off for good. It hit one boot of Linux in seven.
//
// QEMU 7.2 has a gap that guests must avoid: XSETBV in a nested guest does not
// exit to KVM. Tiny guests do not use it; Linux gets `noxsave`. KVM's own XSAVE and
// XCR ioctls work, so the machine's CPU keeps XSAVE.
//
// # Invariants
//
// QEMU ends with the process that started it, on every path: Close kills it,
// the agent powers off at the end of the stream, and the kernel kills QEMU when
// its parent dies.
//
// # Rejected
//
//   - The microvm machine type: a second faster to boot, but without PCI and
//     with a third of the usual timers, so less like the hosts we stand in for.
//   - A fresh machine per package: 5 s each.
//   - 9p or virtiofs: the cloud kernel has no 9p, and virtiofs needs a daemon.
package svm
