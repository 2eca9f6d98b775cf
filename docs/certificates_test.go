package docs_test

import (
	"crypto/x509"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/sirupsen/logrus"

	"github.com/fineline-vmm/fineline/migration"
)

// TestCertificatesScript: what the script makes is what Fineline takes, in both roles.
func TestCertificatesScript(t *testing.T) {
	if _, err := exec.LookPath("openssl"); err != nil {
		t.Skipf("no openssl here: %v", err)
	}
	script, err := filepath.Abs("certificates.sh")
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command("sh", script, "b.example", "127.0.0.1", "::1")
	cmd.Dir = t.TempDir()
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	in := func(name string) string { return filepath.Join(cmd.Dir, name) }
	for _, name := range []string{"b.example", "127.0.0.1", "::1"} {
		files := migration.TLSFiles{Cert: in(name + ".pem"), Key: in(name + ".key"), CA: in("ca.pem")}
		config, err := files.Load(logrus.StandardLogger())
		if err != nil {
			t.Fatal(err)
		}
		leaf := config.Certificates[0].Leaf
		for _, usage := range []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth} {
			o := x509.VerifyOptions{Roots: config.RootCAs, DNSName: name, KeyUsages: []x509.ExtKeyUsage{usage}}
			if name == "::1" {
				o.DNSName = "[::1]"
			}
			if _, err := leaf.Verify(o); err != nil {
				t.Errorf("%s, usage %d: %v", name, usage, err)
			}
		}
	}
}
