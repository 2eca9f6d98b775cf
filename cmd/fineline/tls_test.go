package main

import (
	"net"
	"os"
	"path/filepath"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/fineline-vmm/fineline/migration/tlstest"
)

// cmdCerts makes a folder with two authorities and what they have signed for localhost: certs DIR.
func cmdCerts(ts *testscript.TestScript, _ bool, args []string) {
	dir := ts.MkAbs(args[0])
	ts.Check(os.Mkdir(dir, 0o700))
	ca, err := tlstest.NewAuthority(dir, "ca")
	ts.Check(err)
	other, err := tlstest.NewAuthority(dir, "ca2")
	ts.Check(err)
	for _, leaf := range []struct {
		by       *tlstest.Authority
		name     string
		template tlstest.Template
	}{
		{ca, "src", tlstest.Template{}},
		{ca, "dst", tlstest.Template{}},
		{ca, "expired", tlstest.Template{Expired: true}},
		{other, "alien", tlstest.Template{}},
	} {
		_, err := leaf.by.Issue(leaf.name, leaf.template)
		ts.Check(err)
	}
}

// newPKI is an authority, ca.pem, and what it has signed for both sides: src.pem and dst.pem, with src.key and dst.key. file
// is the path of one of them.
func newPKI(t *testing.T) (file func(name string) string) {
	t.Helper()
	dir := t.TempDir()
	ca, err := tlstest.NewAuthority(dir, "ca")
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"src", "dst"} {
		if _, err := ca.Issue(name, tlstest.Template{}); err != nil {
			t.Fatal(err)
		}
	}
	return func(name string) string { return filepath.Join(dir, name) }
}

// cmdFreePort sets a variable to a TCP port that nobody listens on, now: free-port NAME.
func cmdFreePort(ts *testscript.TestScript, _ bool, args []string) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	ts.Check(err)
	_, port, err := net.SplitHostPort(l.Addr().String())
	ts.Check(err)
	ts.Check(l.Close())
	ts.Setenv(args[0], port)
}
