package main

import (
	"fmt"
	"os"
	"os/exec"
	"os/user"
	"runtime"
	"strconv"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"
	"golang.org/x/sys/unix"
)

// hangGuard only ends a test that hangs; no result depends on it.
const hangGuard = 2 * time.Minute

// These tests drive `fineline` as its users do: as processes. The test binary is
// that program too, under the names below.
func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){
		"fineline":              main,
		"fineline-without-kvm":  withoutKVM,
		"fineline-as-nobody":    asNobody,
		"fineline-little-space": littleSpace,
	})
}

// exitSkip tells a script that this host cannot make the situation it wants.
const exitSkip = 77

func cannot(what string, err error) {
	fmt.Fprintf(os.Stderr, "cannot %s: %v\n", what, err)
	os.Exit(exitSkip)
}

// withoutKVM is fineline on a host that has no /dev/kvm: a mount namespace with an empty /dev.
func withoutKVM() {
	runtime.LockOSThread() // the namespace is the thread's, and exec keeps it
	if err := unix.Unshare(unix.CLONE_NEWNS); err != nil {
		cannot("make a mount namespace", err)
	}
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		cannot("make the mounts private", err)
	}
	exe, err := os.Readlink("/proc/self/exe")
	if err != nil {
		cannot("find the program", err)
	}
	if err := unix.Mount("none", "/dev", "tmpfs", 0, ""); err != nil {
		cannot("hide /dev", err)
	}
	// The name decides what the program is.
	cannot("run", unix.Exec(exe, append([]string{"fineline"}, os.Args[1:]...), os.Environ()))
}

// asNobody is fineline run by a user who may not open /dev/kvm.
func asNobody() {
	nobody, err := user.Lookup("nobody")
	if err != nil {
		nobody = &user.User{Uid: "65534", Gid: "65534"} // the overflow ids of the kernel
	}
	uid, _ := strconv.Atoi(nobody.Uid)
	gid, _ := strconv.Atoi(nobody.Gid)
	if err := unix.Setgroups(nil); err != nil {
		cannot("leave root's groups", err)
	}
	if err := unix.Setresgid(gid, gid, gid); err != nil {
		cannot("become nobody", err)
	}
	if err := unix.Setresuid(uid, uid, uid); err != nil {
		cannot("become nobody", err)
	}
	if unix.Access("/dev/kvm", unix.R_OK|unix.W_OK) == nil {
		cannot("lose the permission", fmt.Errorf("/dev/kvm is open to all on this host"))
	}
	main()
}

// littleSpace is fineline with an address space of 4 GiB: the host cannot give more memory.
func littleSpace() {
	limit := &unix.Rlimit{Cur: 4 << 30, Max: 4 << 30}
	if err := unix.Setrlimit(unix.RLIMIT_AS, limit); err != nil {
		cannot("limit the address space", err)
	}
	main()
}

// hostTierOnly skips what says nothing about the kind of KVM and takes long where the processor is emulated.
func hostTierOnly(t *testing.T) {
	t.Helper()
	if emulated() {
		t.Skip("it says nothing about the kind of KVM, and takes long where the processor is emulated")
	}
}

// emulated reports whether this is the svm tier.
func emulated() bool { return os.Getenv("FINELINE_TIER") == "svm" }

// slow reports whether each migration counts: under emulation, or when the user is in a hurry.
func slow() bool { return testing.Short() || emulated() }

// program is the path of fineline.
func program(t *testing.T) string {
	t.Helper()
	path, err := exec.LookPath("fineline")
	if err != nil {
		t.Fatal(err)
	}
	return path
}
