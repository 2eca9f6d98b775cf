package vmmtest

import (
	"os"
	"testing"

	"github.com/fineline-vmm/fineline/images/linux"
	"github.com/fineline-vmm/fineline/vmm/kvm"
)

// NeedKVM skips where no guest can run.
func NeedKVM(t testing.TB) { kindOfKVM(t) }

// NeedLinux skips where no Linux guest can run, or returns the folder of the Linux test image
// (package linux).
func NeedLinux(t testing.TB) (imageDir string) {
	t.Helper()
	imageDir = os.Getenv(linux.DirEnv)
	if imageDir == "" {
		t.Skipf("%s is not set: it names the Linux test image (the svm tier sets it)", linux.DirEnv)
	}
	if kindOfKVM(t) != kvm.Hardware {
		t.Skip("software KVM does not run Linux kernels: this test runs in the svm tier")
	}
	return imageDir
}

func kindOfKVM(t testing.TB) kvm.Kind {
	t.Helper()
	sys, err := kvm.Open()
	if err != nil {
		t.Skipf("no usable KVM: %v", err)
	}
	kind := sys.Kind()
	if err := sys.Close(); err != nil {
		t.Fatal(err)
	}
	return kind
}
