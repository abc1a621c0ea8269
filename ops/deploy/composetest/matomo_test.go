package composetest

import (
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/compose-spec/compose-go/v2/types"
)

// matomoDir has the file for Matomo.
const matomoDir = root + "/ops/deploy/matomo"

// TestMatomoServices reads the file for Matomo as TestServices, TestHardened and
// TestImagesArePinned read the other one.
func TestMatomoServices(t *testing.T) {
	p := loadFrom(t, matomoDir)
	if got, want := p.ServiceNames(), []string{"import", "mariadb", "matomo", "nginx", "tokenledger"}; !slices.Equal(got, want) {
		t.Errorf("services are %s, want %s", got, want)
	}
	pinned := regexp.MustCompile(`^[a-z0-9./-]+:\d+\.\d+\.\d+(-alpine|-apache)?(@sha256:[0-9a-f]{64})?$`)
	for name, s := range p.Services {
		if s.Build == nil && !pinned.MatchString(s.Image) {
			t.Errorf("%s: image %s is not pinned to a version", name, s.Image)
		}
		if !slices.Equal(s.CapDrop, []string{"ALL"}) || s.Privileged || !slices.Contains(s.SecurityOpt, "no-new-privileges:true") || s.Restart != "unless-stopped" {
			t.Errorf("%s: capabilities %s dropped, privileged %v, %s, restart %q", name, s.CapDrop, s.Privileged, s.SecurityOpt, s.Restart)
		}
		if user, _, _ := strings.Cut(s.User, ":"); name != "matomo" && (!s.ReadOnly || len(s.CapAdd) > 0 || !positive(user)) {
			t.Errorf("%s: read-only %v, capabilities %s, user %q", name, s.ReadOnly, s.CapAdd, s.User)
		}
		for _, port := range s.Ports {
			if ip, err := netip.ParseAddr(port.HostIP); err != nil || !ip.IsLoopback() {
				t.Errorf("%s: port %s is published on %q, want loopback", name, port.Published, port.HostIP)
			}
		}
		for _, v := range s.Volumes {
			if v.Type == types.VolumeTypeBind && (!v.ReadOnly || v.Bind == nil || bool(v.Bind.CreateHostPath)) {
				t.Errorf("%s: can write %s of this repository, or makes it if it is missing", name, v.Source)
			}
		}
		if s.Build != nil {
			if dir, err := filepath.Abs(root); err != nil || filepath.Clean(s.Build.Context) != dir || s.PullPolicy != types.PullPolicyBuild || s.Image != "tokenledger:local" {
				t.Errorf("%s: built from %s as %s, %s", name, s.Build.Context, s.Image, s.PullPolicy)
			}
		}
	}
}

// TestMatomoWiring holds together what several files say: who reaches whom, whom
// the gateway believes, and nginx's configuration.
func TestMatomoWiring(t *testing.T) {
	p := loadFrom(t, matomoDir)
	for name, s := range p.Services {
		_, database := s.Networks["database"]
		if want := name != "nginx"; database != want {
			t.Errorf("%s: on the network of the database: %v, want %v", name, database, want)
		}
		for key, v := range s.Environment {
			_, known := p.Services["mariadb"]
			if key == "MATOMO_DATABASE_HOST" && (!known || *v != "mariadb") {
				t.Errorf("%s: %s is %s", name, key, *v)
			}
		}
	}
	nginx := p.Services["nginx"]
	for _, name := range []string{"tokenledger", "matomo"} {
		if got, at := nginx.ExtraHosts[name], p.Services[name].Networks["web"].Ipv4Address; at == "" || !slices.Equal(got, []string{at}) {
			t.Errorf("nginx: knows %s at %s, and it is at %q", name, got, at)
		}
	}
	b, err := os.ReadFile(filepath.Join(matomoDir, "tokenledger.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	if want := "\ntrusted_proxies: [" + nginx.Networks["web"].Ipv4Address + "/32]\n"; !strings.Contains(string(b), want) {
		t.Errorf("tokenledger.yaml does not say %q", want)
	}
	args := []string{"snippet", "matomo", "--listen", "8080", "--gateway", "http://tokenledger:7605", "--direct", "http://matomo:80", "--access-log", "off"}
	want, err := exec.Command(program(t), args...).Output()
	if err != nil {
		t.Fatal(err)
	}
	const file = "nginx/tokenledger-matomo.conf"
	got, err := os.ReadFile(filepath.Join(matomoDir, file))
	if err != nil {
		t.Fatal(err)
	}
	if string(got) != string(want) {
		t.Errorf("%s is not what the program prints; write it again: bin/tokenledger %s > ops/deploy/matomo/%[1]s", file, strings.Join(args, " "))
	}
	matomo, maria := p.Services["matomo"].Environment, p.Services["mariadb"].Environment
	for key, of := range map[string]string{"MATOMO_DATABASE_USERNAME": "MARIADB_USER", "MATOMO_DATABASE_PASSWORD": "MARIADB_PASSWORD", "MATOMO_DATABASE_DBNAME": "MARIADB_DATABASE"} {
		if matomo[key] == nil || maria[of] == nil || *matomo[key] != *maria[of] {
			t.Errorf("%s of Matomo is not %s of MariaDB", key, of)
		}
	}
}

// TestMatomoCommands has the program read the commands and the variables of the
// file.
func TestMatomoCommands(t *testing.T) {
	p := loadFrom(t, matomoDir)
	for _, name := range []string{"tokenledger", "import"} {
		s := p.Services[name]
		help, err := exec.Command(program(t), append(slices.Clone(s.Command), "--help")...).CombinedOutput()
		if err != nil {
			t.Errorf("%s: %v: %s", name, err, help)
		}
		for key := range s.Environment {
			if !strings.Contains(string(help), "$"+key) {
				t.Errorf("%s: the help of its command does not name $%s", name, key)
			}
		}
	}
}
