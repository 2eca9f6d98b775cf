package main

import (
	"context"
	"errors"
	"testing"

	"github.com/fineline-vmm/fineline/migration"
)

// TestWordComesTooLate: a human's word that finds the doubt settled is answered at once, and nothing is done.
func TestWordComesTooLate(t *testing.T) {
	decide := func(o *outgoing) <-chan error {
		said := make(chan error, 1)
		go func() { said <- o.decide(t.Context(), migration.GuestIsHere) }()
		return said
	}
	verify := func(t *testing.T, said <-chan error) {
		t.Helper()
		if err := <-said; !errors.Is(err, errSettled) {
			t.Errorf("the word is answered with: %v", err)
		}
	}
	t.Run("while memory follows", func(t *testing.T) {
		o := newOutgoing(nil)
		moved := make(chan struct{})
		said := decide(o)
		settled := make(chan error, 1)
		go func() {
			_, v, err := o.askAgain(func(ctx context.Context) (*migration.Result, error) {
				<-ctx.Done() // by the word
				close(o.left)
				<-moved
				return &migration.Result{}, nil
			})
			if v != nil {
				t.Error("the word is still to be carried out")
			}
			settled <- err
		}()
		verify(t, said)
		verify(t, decide(o)) // another one
		close(moved)
		if err := <-settled; err != nil {
			t.Error(err)
		}
	})
	t.Run("as the answer comes", func(t *testing.T) {
		o := newOutgoing(nil)
		said := decide(o)
		_, v, err := o.askAgain(func(ctx context.Context) (*migration.Result, error) {
			<-ctx.Done()
			return &migration.Result{}, migration.ErrDestinationDied
		})
		if v != nil || !errors.Is(err, migration.ErrDestinationDied) {
			t.Errorf("%v, %v", v, err)
		}
		verify(t, said)
	})
	t.Run("after it", func(t *testing.T) {
		o := newOutgoing(nil)
		close(o.certain)
		verify(t, decide(o))
	})
	t.Run("in time", func(t *testing.T) {
		o := newOutgoing(nil)
		said := decide(o)
		_, v, err := o.askAgain(func(ctx context.Context) (*migration.Result, error) {
			<-ctx.Done()
			return nil, &migration.InDoubtError{Cause: context.Cause(ctx)}
		})
		if v == nil || v.decision != migration.GuestIsHere || !errors.As(err, new(*migration.InDoubtError)) {
			t.Fatalf("%v, %v", v, err)
		}
		v.done <- nil
		if err := <-said; err != nil {
			t.Error(err)
		}
	})
}
