package main

import (
	"errors"
	"reflect"
	"sync/atomic"
	"testing"
)

func TestJobFindsAnotherOutcome(t *testing.T) {
	outcomes := []struct {
		out string
		err error
	}{{"a", nil}, {"a", nil}, {"b", nil}, {"a", nil}, {"a", errors.New("exit status 1")}}
	var stop atomic.Bool
	var told []string
	at := 0
	j := &job{stop: &stop, report: func(s string) { told = append(told, s) }, run: func(string) ([]byte, error) {
		o := outcomes[at]
		at++
		stop.Store(at == len(outcomes))
		return []byte(o.out), o.err
	}}
	j.repeat()
	if want := []string{`job: "b" in place of "a"`, `job: exit status 1: "a"`}; !reflect.DeepEqual(told, want) {
		t.Errorf("%q, want %q", told, want)
	}
	if n := j.done.Load(); n != 2 {
		t.Errorf("%d runs were right, want 2", n)
	}
}
