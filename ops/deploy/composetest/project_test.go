package composetest

import (
	"maps"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/compose-spec/compose-go/v2/cli"
	"github.com/compose-spec/compose-go/v2/types"
)

// root is the repository.
const root = "../../.."

// load reads the file as docker compose does: what its schema does not know is
// an error, and so are names of services, networks and volumes that nobody
// declares. Variables have to have a value in the file itself.
func load(t testing.TB) *types.Project {
	t.Helper()
	return loadFrom(t, root)
}

// loadFrom reads the file of a folder.
func loadFrom(t testing.TB, folder string) *types.Project {
	t.Helper()
	dir, err := filepath.Abs(folder)
	if err != nil {
		t.Fatal(err)
	}
	o, err := cli.NewProjectOptions([]string{filepath.Join(dir, "docker-compose.yml")},
		cli.WithWorkingDirectory(dir), cli.WithInterpolation(true), cli.WithNormalization(true),
		cli.WithConsistency(true), cli.WithResolvedPaths(true), cli.WithDefaultProfiles("*"), cli.WithEnv(nil))
	if err != nil {
		t.Fatal(err)
	}
	p, err := o.LoadProject(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return p
}

var (
	ledgers   = []string{"ledger1", "ledger2", "ledger3"}
	verifiers = []string{"verifier1", "verifier2", "verifier3"}
	nodes     = slices.Concat(ledgers, verifiers)
	ours      = append([]string{"credentials"}, nodes...)
)

func TestServices(t *testing.T) {
	p := load(t)
	want := append(slices.Clone(ours), "nginx", "app", "prometheus")
	if got := p.ServiceNames(); !slices.Equal(got, slices.Sorted(slices.Values(want))) {
		t.Errorf("services are %s, want %s", got, want)
	}
	if len(p.DisabledServiceNames()) > 0 {
		t.Errorf("services %s are not started by docker compose up", p.DisabledServiceNames())
	}
	for _, name := range ours {
		s := p.Services[name]
		if s.Build == nil || s.Build.Dockerfile != "Dockerfile" || s.Image != "tokenledger:local" {
			t.Errorf("%s: image %s, build %v; want that of this repository's Dockerfile", name, s.Image, s.Build)
		}
		if s.User != "65532:65532" {
			t.Errorf("%s: user %q, want 65532:65532", name, s.User)
		}
	}
	// Configs are copied into a container when it is created, for which its
	// mounts are made; a subpath is not there yet by then.
	for name, s := range p.Services {
		if len(s.Configs) > 0 || len(s.Secrets) > 0 {
			t.Errorf("%s: has configs or secrets; mount a file instead", name)
		}
	}
}

// TestHardened looks at what each service may do.
func TestHardened(t *testing.T) {
	for name, s := range load(t).Services {
		if !s.ReadOnly {
			t.Errorf("%s: its root file system can be written", name)
		}
		if !slices.Equal(s.CapDrop, []string{"ALL"}) || len(s.CapAdd) > 0 || s.Privileged {
			t.Errorf("%s: capabilities %s dropped, %s added, privileged %v; want all dropped", name, s.CapDrop, s.CapAdd, s.Privileged)
		}
		if !slices.Contains(s.SecurityOpt, "no-new-privileges:true") {
			t.Errorf("%s: may gain privileges", name)
		}
		if user, _, _ := strings.Cut(s.User, ":"); user == "" || user == "0" || user == "root" {
			t.Errorf("%s: runs as user %q", name, s.User)
		}
		want := "unless-stopped"
		if name == "credentials" {
			want = "no"
		}
		if s.Restart != want {
			t.Errorf("%s: restart %q, want %q", name, s.Restart, want)
		}
		for _, port := range s.Ports {
			if ip, err := netip.ParseAddr(port.HostIP); err != nil || !ip.IsLoopback() {
				t.Errorf("%s: port %s is published on %q, want loopback", name, port.Published, port.HostIP)
			}
		}
		for _, v := range s.Volumes {
			if v.Type == types.VolumeTypeBind && !v.ReadOnly {
				t.Errorf("%s: can write %s of this repository", name, v.Source)
			}
			if v.Type == types.VolumeTypeBind && (v.Bind == nil || v.Bind.CreateHostPath) {
				t.Errorf("%s: a misspelt %s would be made, and be empty", name, v.Source)
			}
		}
	}
}

// pinned is an image with a version of three numbers, and a digest where wanted.
var pinned = regexp.MustCompile(`^[a-z0-9./-]+:v?\d+\.\d+\.\d+(-alpine)?(@sha256:[0-9a-f]{64})?$`)

func TestImagesArePinned(t *testing.T) {
	for name, s := range load(t).Services {
		if s.Build == nil && !pinned.MatchString(s.Image) {
			t.Errorf("%s: image %s is not pinned to a version", name, s.Image)
		}
		if s.Build != nil && s.PullPolicy != types.PullPolicyBuild {
			t.Errorf("%s: docker compose up would go on with an image of an older program", name)
		}
	}
}

// TestNodesSeeTheirOwnCredentials keeps each node from the keys of the others
// and of the authority.
func TestNodesSeeTheirOwnCredentials(t *testing.T) {
	p := load(t)
	for name, s := range p.Services {
		for _, v := range s.Volumes {
			if v.Type != types.VolumeTypeVolume || v.Source != "credentials" || name == "credentials" {
				continue
			}
			if !slices.Contains(nodes, name) || v.Volume == nil || v.Volume.Subpath != "nodes/"+name || !v.Volume.NoCopy || !v.ReadOnly {
				t.Errorf("%s: mounts %+v of the credentials, want nodes/%s, read-only and nocopy", name, v.Volume, name)
			}
		}
	}
	for _, name := range nodes {
		if d := p.Services[name].DependsOn["credentials"]; d.Condition != types.ServiceConditionCompletedSuccessfully {
			t.Errorf("%s: does not wait until its credentials are made", name)
		}
	}
	if s := p.Services["credentials"]; s.NetworkMode != "none" {
		t.Errorf("credentials: has a network, %q", s.NetworkMode)
	}
}

// TestNetworks keeps applications from the ledgers and the log.
func TestNetworks(t *testing.T) {
	p := load(t)
	want := map[string][]string{"nginx": {"clients"}, "app": {"clients"}, "prometheus": {"nodes"}}
	for _, name := range ledgers {
		want[name] = []string{"nodes"}
	}
	for _, name := range verifiers {
		want[name] = []string{"clients", "nodes"}
	}
	for name, nets := range want {
		if got := slices.Sorted(maps.Keys(p.Services[name].Networks)); !slices.Equal(got, nets) {
			t.Errorf("%s: on networks %s, want %s", name, got, nets)
		}
	}
	// nginx does not start where it does not know a name. A service that is
	// down has none but where the file gives it one.
	for _, name := range append([]string{"app"}, verifiers...) {
		if got, at := p.Services["nginx"].ExtraHosts[name], p.Services[name].Networks["clients"].Ipv4Address; at == "" || !slices.Equal(got, []string{at}) {
			t.Errorf("nginx: knows %s at %s, and it is at %q", name, got, at)
		}
	}
	b, err := os.ReadFile(filepath.Join(root, "ops/deploy/compose/verifier.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	if want := "\ntrusted_proxies: [" + p.Services["nginx"].Networks["clients"].Ipv4Address + "/32]\n"; !strings.Contains(string(b), want) {
		t.Errorf("verifier.yaml does not say %q", want)
	}
}

// TestNginxIsThePrintedOne keeps nginx's configuration that which the program
// prints, and which ops/proxytest tests.
func TestNginxIsThePrintedOne(t *testing.T) {
	args := []string{"snippet", "nginx", "--listen", "8080", "--upstream", "http://app:3000", "--policy", "site", "--access-log", "off"}
	for _, v := range verifiers {
		args = append(args, "--verifier", "http://"+v+":7601")
	}
	want, err := exec.Command(program(t), args...).Output()
	if err != nil {
		t.Fatal(err)
	}
	const file = "ops/deploy/compose/nginx/tokenledger.conf"
	got, err := os.ReadFile(filepath.Join(root, file))
	if err != nil {
		t.Fatal(err)
	}
	if string(got) != string(want) {
		t.Errorf("%s is not what the program prints; write it again: bin/tokenledger %s > %[1]s", file, strings.Join(args, " "))
	}
}

// TestPrometheusConfig checks the configuration with Prometheus' own tool.
func TestPrometheusConfig(t *testing.T) {
	tool, err := exec.LookPath("promtool")
	if err != nil {
		t.Skip("******** NOT TESTED: no promtool here, which Debian's prometheus has ********")
	}
	cmd := exec.Command(tool, "check", "config", filepath.Join(root, "ops/deploy/compose/prometheus/prometheus.yml"))
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Errorf("promtool: %v\n%s", err, out)
	}
}
