package migration

import (
	"context"
	"errors"
	"strings"
	"testing"
)

// TestErrorsSayWhatNext: who reads that nothing is settled reads what to type.
func TestErrorsSayWhatNext(t *testing.T) {
	for _, c := range []struct {
		err  error
		next string
	}{
		{&InDoubtError{MachineID: "m", Generation: 1, Cause: errNet}, "look there and decide: fineline resume --in-doubt keep"},
		{errJustCommitted, "`fineline status`"},
		{&DiscardedError{Accepted: true, Cause: errNet}, "the guest is at the source, if that lives: start this process again"},
	} {
		if text := c.err.Error(); !strings.Contains(text, c.next) {
			t.Errorf("%q does not say %q", text, c.next)
		}
	}
	if err := (&DiscardedError{Cause: errNet}); !errors.Is(err, errNet) {
		t.Errorf("%v hides its cause", err)
	}
}

// TestOnlyRequestsCancel: who ends a migration for a reason of its own has not been asked to.
func TestOnlyRequestsCancel(t *testing.T) {
	for _, c := range []struct {
		cause error
		want  bool
	}{{nil, true}, {context.Canceled, true}, {errNet, false}} {
		ctx, cancel := context.WithCancelCause(t.Context())
		if isCancel(ctx, errNet) {
			t.Error("cancelled before anybody did")
		}
		cancel(c.cause)
		if got := isCancel(ctx, context.Cause(ctx)); got != c.want {
			t.Errorf("ended because of %v: cancelled %v, want %v", c.cause, got, c.want)
		}
	}
}
