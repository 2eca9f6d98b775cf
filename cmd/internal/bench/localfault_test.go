package bench

import (
	"errors"
	"testing"

	"github.com/fineline-vmm/fineline/memory"
	"github.com/fineline-vmm/fineline/vmm/vmmtest"
)

// TestLocalFault: every page is waited for, once.
func TestLocalFault(t *testing.T) {
	vmmtest.NeedKVM(t)
	us, err := localFaultUS(t.Context())
	if errors.Is(err, memory.ErrNoUserfaults) {
		t.Skip(err)
	}
	if err != nil {
		t.Fatal(err)
	}
	if len(us) != localPages-1 {
		t.Errorf("%d cycles of %d pages", len(us), localPages)
	}
}
