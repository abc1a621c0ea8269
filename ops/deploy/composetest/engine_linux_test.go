package composetest

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/compose-spec/compose-go/v2/types"
)

// patience is how long a test waits for what has to come.
const patience = 3 * time.Minute

// until waits until something can be seen.
func until(t testing.TB, what string, seen func() error) {
	t.Helper()
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for deadline := time.Now().Add(patience); ; <-tick.C {
		err := seen()
		if err == nil {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("after %s still not: %s: %v", patience, what, err)
		}
	}
}

// applied are the settings of a service that engine applies, or that say
// something about building alone.
var applied = []string{
	"build", "image", "pull_policy",
	"cap_drop", "command", "depends_on", "entrypoint", "environment", "extra_hosts", "healthcheck", "network_mode", "networks",
	"ports", "read_only", "security_opt", "stop_grace_period", "tmpfs", "user", "volumes",
	// A service that ends by itself fails the test, where Docker starts it again.
	"restart",
}

// engine does what docker compose does with a project.
type engine struct {
	t       testing.TB
	p       *types.Project
	dir     string
	images  map[string]image     // name -> image
	bridges map[string]string    // network -> its bridge
	addrs   map[string]addresses // service -> network -> address
	names   *names

	links   int // that were made so far
	running map[string]*container
	output  sync.Mutex
}

type addresses map[string]netip.Prefix

func newEngine(t testing.TB, p *types.Project) *engine {
	t.Helper()
	e := &engine{
		t: t, p: p, dir: t.TempDir(), images: map[string]image{}, bridges: map[string]string{},
		addrs: map[string]addresses{}, running: map[string]*container{},
	}
	e.names = &names{addrs: e.addrs, up: map[string]bool{}}
	for name, s := range p.Services {
		for _, setting := range settings(t, s) {
			if !slices.Contains(applied, setting) {
				t.Fatalf("%s: %s is not applied by this test, which would pass it over", name, setting)
			}
		}
	}
	e.makeNetworks()
	t.Cleanup(func() {
		e.stop(slices.Sorted(maps.Keys(e.running))...)
		for _, bridge := range e.bridges {
			if err := ip("link del " + bridge); err != nil {
				t.Error(err)
			}
		}
	})
	return e
}

// settings are the names of what a service sets.
func settings(t testing.TB, s types.ServiceConfig) []string {
	t.Helper()
	b, err := json.Marshal(s)
	if err != nil {
		t.Fatal(err)
	}
	var members map[string]any
	if err := json.Unmarshal(b, &members); err != nil {
		t.Fatal(err)
	}
	maps.DeleteFunc(members, func(_ string, v any) bool { return v == nil })
	return slices.Sorted(maps.Keys(members))
}

// makeNetworks makes a bridge for each network and gives each service its
// addresses: those of the file first.
func (e *engine) makeNetworks() {
	e.t.Helper()
	for _, name := range slices.Sorted(maps.Keys(e.p.Networks)) {
		n := e.p.Networks[name]
		if len(n.Ipam.Config) != 1 || n.Internal || n.Driver != "" && n.Driver != "bridge" {
			e.t.Fatalf("network %s: %+v: this test knows bridges with one subnet", name, n)
		}
		subnet := netip.MustParsePrefix(n.Ipam.Config[0].Subnet)
		gateway := subnet.Addr().Next()
		taken := map[netip.Addr]bool{gateway: true}
		var rest []string
		for _, s := range slices.Sorted(maps.Keys(e.p.Services)) {
			at, on := e.p.Services[s].Networks[name]
			if !on {
				continue
			}
			if e.addrs[s] == nil {
				e.addrs[s] = addresses{}
			}
			if at == nil || at.Ipv4Address == "" {
				rest = append(rest, s)
				continue
			}
			a := netip.MustParseAddr(at.Ipv4Address)
			if !subnet.Contains(a) || taken[a] {
				e.t.Fatalf("%s: address %s is taken or not in network %s, %s", s, a, name, subnet)
			}
			taken[a] = true
			e.addrs[s][name] = netip.PrefixFrom(a, subnet.Bits())
		}
		free := gateway
		for _, s := range rest {
			for taken[free] {
				free = free.Next()
			}
			taken[free] = true
			e.addrs[s][name] = netip.PrefixFrom(free, subnet.Bits())
		}
		bridge := fmt.Sprintf("bridge%d", len(e.bridges))
		// A bridge without an address of its own takes that of a port, and
		// changes it with the ports.
		if err := ip(fmt.Sprintf("link add %s address %s type bridge", bridge, mac(gateway)), fmt.Sprintf("addr add %s/%d dev %s", gateway, subnet.Bits(), bridge), "link set "+bridge+" up"); err != nil {
			e.t.Fatal(err)
		}
		e.bridges[name] = bridge
		e.names.serve(e.t, gateway)
	}
}

// image returns a service's image: that of this repository, or Debian in place
// of another one, with what matters of that.
func (e *engine) image(s types.ServiceConfig) image {
	e.t.Helper()
	if img, ok := e.images[s.Image]; ok {
		return img
	}
	dir := filepath.Join(e.dir, "images", strconv.Itoa(len(e.images)))
	if err := os.MkdirAll(dir, 0o755); err != nil {
		e.t.Fatal(err)
	}
	const path = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
	img := image{dirs: []string{dir}, env: []string{path}}
	switch name, _, _ := strings.Cut(s.Image, ":"); {
	case s.Build != nil:
		img = buildImage(e.t, dir, true)
		img.env = append(img.env, path)
	case name == "nginx":
		img.host, img.stopSignal = true, "SIGQUIT"
	case name == "matomo": // the test says what runs in its place
		img.host, img.stopSignal = true, "SIGTERM"
	case name == "prom/prometheus":
		img.host, img.entrypoint = true, []string{"/bin/prometheus"}
		volume := filepath.Join(dir, "prometheus")
		if err := errors.Join(os.Mkdir(volume, 0o755), os.Chown(volume, 65534, 65534)); err != nil {
			e.t.Fatal(err)
		}
	default:
		e.t.Fatalf("%s: this test has nothing in place of image %s", s.Name, s.Image)
	}
	if img.host {
		// What the C library reads. The rest of /etc is this machine's own.
		etc := filepath.Join(dir, "etc")
		if err := os.Mkdir(etc, 0o755); err != nil {
			e.t.Fatal(err)
		}
		for _, name := range []string{"passwd", "group", "nsswitch.conf", "ld.so.cache"} {
			b, err := os.ReadFile("/etc/" + name)
			if err == nil {
				err = os.WriteFile(filepath.Join(etc, name), b, 0o644)
			}
			if err != nil && !errors.Is(err, fs.ErrNotExist) {
				e.t.Fatal(err)
			}
		}
	}
	e.images[s.Image] = img
	return img
}

// makePlace makes what is to be mounted on, where the image has the folder that
// it is in but not the place itself.
func (img image) makePlace(m mount) error {
	for _, dir := range img.dirs {
		top, _, deeper := strings.Cut(strings.TrimPrefix(m.At, "/"), "/")
		if _, err := os.Stat(filepath.Join(dir, top)); err != nil || !deeper {
			continue
		}
		at := filepath.Join(dir, m.At)
		if _, err := os.Stat(at); err == nil {
			return nil
		}
		info, err := os.Stat(m.From)
		if err != nil {
			return err
		}
		if info.IsDir() {
			return os.MkdirAll(at, 0o755)
		}
		return errors.Join(os.MkdirAll(filepath.Dir(at), 0o755), os.WriteFile(at, nil, 0o644))
	}
	return nil
}

// pieces are what is in the root of a container of the image.
func (img image) pieces() ([]piece, error) {
	var out []piece
	for _, dir := range img.dirs {
		entries, err := os.ReadDir(dir)
		if err != nil {
			return nil, err
		}
		for _, d := range entries {
			out = append(out, piece{Name: d.Name(), From: filepath.Join(dir, d.Name()), Dir: d.IsDir()})
		}
	}
	if !img.host {
		return out, nil
	}
	for _, name := range []string{"usr", "bin", "sbin", "lib", "lib32", "lib64"} {
		link, err := os.Readlink("/" + name)
		if err == nil {
			out = append(out, piece{Name: name, Link: link})
			continue
		}
		if info, err := os.Stat("/" + name); err == nil && info.IsDir() {
			out = append(out, piece{Name: name, From: "/" + name, Dir: true})
		}
	}
	return out, nil
}

// volume returns the folder of a named volume. An empty one takes on what the
// image has where it is mounted, with its owner; a folder in it has to be there.
func (e *engine) volume(img image, v types.ServiceVolumeConfig) (string, error) {
	dir := filepath.Join(e.dir, "volumes", v.Source)
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return "", err
	}
	options := v.Volume
	if options == nil {
		options = &types.ServiceVolumeVolume{}
	}
	entries, err := os.ReadDir(dir)
	if err != nil {
		return "", err
	}
	for _, layer := range img.dirs {
		from := filepath.Join(layer, v.Target)
		info, err := os.Stat(from)
		if err != nil || options.NoCopy || len(entries) > 0 {
			continue
		}
		if err := copyTree(from, dir, func(path string) error {
			rel, err := filepath.Rel(dir, path)
			if err != nil {
				return err
			}
			if info, err = os.Stat(filepath.Join(from, rel)); err != nil {
				return err
			}
			owner := info.Sys().(*syscall.Stat_t)
			return os.Lchown(path, int(owner.Uid), int(owner.Gid))
		}); err != nil {
			return "", err
		}
	}
	dir = filepath.Join(dir, options.Subpath)
	if _, err := os.Stat(dir); err != nil {
		return "", fmt.Errorf("volume %s has no %s: %w", v.Source, options.Subpath, err)
	}
	return dir, nil
}

// container is a running service.
type container struct {
	service  types.ServiceConfig
	image    image
	cmd      *exec.Cmd
	uid, gid int
	env      []string
	gone     chan struct{} // closed when it has ended
	forwards []net.Listener
}

// start starts a service and does not wait for it.
func (e *engine) start(name string) *container {
	e.t.Helper()
	c, err := e.tryStart(name)
	if err != nil {
		e.t.Fatalf("start %s: %v", name, err)
	}
	return c
}

func (e *engine) tryStart(name string) (*container, error) {
	s := e.p.Services[name]
	img := e.image(s)
	c := &container{service: s, image: img, gone: make(chan struct{})}
	b := blueprint{
		Hostname: name, ReadOnly: s.ReadOnly, Dir: "/", Root: filepath.Join(e.dir, name+".root"),
		NoNewPrivileges: slices.Contains(s.SecurityOpt, "no-new-privileges:true"),
	}
	if err := os.MkdirAll(b.Root, 0o755); err != nil {
		return nil, err
	}
	var err error
	if b.Image, err = img.pieces(); err != nil {
		return nil, err
	}
	if c.uid, c.gid, err = userIDs(s.User); err != nil {
		return nil, err
	}
	b.UID, b.GID = c.uid, c.gid

	if b.Args = s.Entrypoint; b.Args == nil {
		b.Args = img.entrypoint
	}
	switch {
	case s.Command != nil:
		b.Args = slices.Concat(b.Args, s.Command)
	case s.Entrypoint == nil: // or the image's own does not fit
		b.Args = slices.Concat(b.Args, img.cmd)
	}
	b.Env = append(slices.Clone(img.env), "HOSTNAME="+name, "HOME=/")
	for _, k := range slices.Sorted(maps.Keys(s.Environment)) {
		if v := s.Environment[k]; v != nil {
			b.Env = append(b.Env, k+"="+*v)
		}
	}
	c.env = b.Env

	for _, t := range s.Tmpfs {
		at, options, _ := strings.Cut(t, ":")
		b.Mounts = append(b.Mounts, mount{At: at, Options: options})
	}
	for _, v := range s.Volumes {
		m := mount{At: v.Target, From: v.Source, ReadOnly: v.ReadOnly}
		switch v.Type {
		case types.VolumeTypeVolume:
			if m.From, err = e.volume(img, v); err != nil {
				return nil, err
			}
		case types.VolumeTypeBind:
			if v.Bind != nil && bool(v.Bind.CreateHostPath) {
				return nil, fmt.Errorf("volume %s: a folder that is missing would be made", v.Source)
			}
		default:
			return nil, fmt.Errorf("volume %s: this test does not know type %s", v.Source, v.Type)
		}
		b.Mounts = append(b.Mounts, m)
	}
	for at, content := range map[string]string{"/etc/hosts": e.hosts(s), "/etc/resolv.conf": e.resolvConf(name)} {
		from := filepath.Join(e.dir, name+"."+filepath.Base(at))
		if err := os.WriteFile(from, []byte(content), 0o644); err != nil {
			return nil, err
		}
		b.Mounts = append(b.Mounts, mount{At: at, From: from, ReadOnly: true})
	}
	for _, m := range b.Mounts {
		if m.From == "" {
			continue
		}
		if err := img.makePlace(m); err != nil {
			return nil, err
		}
	}
	return c, e.launch(c, b)
}

// userIDs reads user:group, both as numbers: names differ between images.
func userIDs(user string) (uid, gid int, err error) {
	if _, err := fmt.Sscanf(user, "%d:%d", &uid, &gid); err != nil {
		return 0, 0, fmt.Errorf("user %q: want two numbers: %w", user, err)
	}
	return uid, gid, nil
}

// launch starts a container's first process, gives it its network and tells it
// what to become.
func (e *engine) launch(c *container, b blueprint) error {
	name := c.service.Name
	told, tell, err := os.Pipe()
	if err != nil {
		return err
	}
	defer func() { _, _ = told.Close(), tell.Close() }()
	c.cmd = exec.Command("/proc/self/exe")
	c.cmd.Env = append(os.Environ(), asContainer+"=1")
	c.cmd.ExtraFiles = []*os.File{told}
	w := &prefixed{e: e, name: name}
	c.cmd.Stdout, c.cmd.Stderr = w, w
	c.cmd.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags: syscall.CLONE_NEWNET | syscall.CLONE_NEWNS | syscall.CLONE_NEWPID | syscall.CLONE_NEWIPC | syscall.CLONE_NEWUTS,
	}
	if err := c.cmd.Start(); err != nil {
		return err
	}
	e.running[name] = c
	go func() {
		_ = c.cmd.Wait() // its state says how it ended
		close(c.gone)
	}()
	outside := []string{}
	b.Network = []string{"link set lo up"}
	for i, n := range slices.Sorted(maps.Keys(e.addrs[name])) {
		at := e.addrs[name][n]
		e.links++
		link := fmt.Sprintf("link%d", e.links)
		outside = append(outside,
			// An address that comes back comes back at the same place, as with
			// Docker; others would go on to send to where it was.
			fmt.Sprintf("link add %s type veth peer name eth%d address %s netns %d", link, i, mac(at.Addr()), c.cmd.Process.Pid),
			fmt.Sprintf("link set %s master %s up", link, e.bridges[n]))
		b.Network = append(b.Network, fmt.Sprintf("addr add %s dev eth%d", at, i), fmt.Sprintf("link set eth%d up", i))
		if i == 0 {
			b.Network = append(b.Network, "route add default via "+at.Masked().Addr().Next().String())
		}
	}
	if c.service.NetworkMode != "" && (c.service.NetworkMode != "none" || len(outside) > 0) {
		return fmt.Errorf("network_mode %s: this test knows none", c.service.NetworkMode)
	}
	if len(outside) > 0 {
		if err := ip(outside...); err != nil {
			return err
		}
	}
	e.names.set(name, true)
	if err := json.NewEncoder(tell).Encode(b); err != nil {
		return err
	}
	return e.publish(c)
}

// mac is the address of a link, by the address of what is behind it.
func mac(a netip.Addr) string {
	b := a.As4()
	return net.HardwareAddr{0x02, 0x42, b[0], b[1], b[2], b[3]}.String()
}

// publish forwards ports of this machine to a container's.
func (e *engine) publish(c *container) error {
	for _, p := range c.service.Ports {
		if p.Protocol != "tcp" || p.Mode != "ingress" {
			return fmt.Errorf("port %s: this test knows tcp", p.Published)
		}
		l, err := net.Listen("tcp", net.JoinHostPort(p.HostIP, p.Published))
		if err != nil {
			return err
		}
		c.forwards = append(c.forwards, l)
		network := slices.Min(slices.Collect(maps.Keys(e.addrs[c.service.Name])))
		to := netip.AddrPortFrom(e.addrs[c.service.Name][network].Addr(), uint16(p.Target)).String()
		go forward(l, to)
	}
	return nil
}

// forward hands connections on until the listener is closed.
func forward(l net.Listener, to string) {
	for {
		in, err := l.Accept()
		if err != nil {
			return
		}
		go func() {
			defer func() { _ = in.Close() }()
			out, err := net.Dial("tcp", to)
			if err != nil {
				return // as Docker does: the client finds its connection closed
			}
			defer func() { _ = out.Close() }()
			go func() {
				_, _ = io.Copy(out, in)
				_ = out.(*net.TCPConn).CloseWrite()
			}()
			_, _ = io.Copy(in, out)
		}()
	}
}

// hosts is a container's /etc/hosts.
func (e *engine) hosts(s types.ServiceConfig) string {
	var b strings.Builder
	b.WriteString("127.0.0.1 localhost\n")
	for _, at := range e.addrs[s.Name] {
		fmt.Fprintf(&b, "%s %s\n", at.Addr(), s.Name)
	}
	for _, host := range slices.Sorted(maps.Keys(s.ExtraHosts)) {
		for _, a := range s.ExtraHosts[host] {
			fmt.Fprintf(&b, "%s %s\n", a, host)
		}
	}
	return b.String()
}

// resolvConf is a container's /etc/resolv.conf.
func (e *engine) resolvConf(name string) string {
	for _, n := range slices.Sorted(maps.Keys(e.addrs[name])) {
		return fmt.Sprintf("nameserver %s\noptions ndots:0\n", e.addrs[name][n].Masked().Addr().Next())
	}
	return ""
}

// ended waits until a container has ended by itself.
func (e *engine) ended(c *container) (code int) {
	e.t.Helper()
	select {
	case <-c.gone:
	case <-time.After(patience):
		e.t.Fatalf("%s does not end", c.service.Name)
	}
	e.forget(c)
	return c.cmd.ProcessState.ExitCode()
}

func (e *engine) forget(c *container) {
	delete(e.running, c.service.Name)
	for _, l := range c.forwards {
		_ = l.Close()
	}
	e.names.set(c.service.Name, false)
}

// stop ends containers as docker compose does, all at once, and looks at how they
// ended.
func (e *engine) stop(names ...string) {
	e.t.Helper()
	for _, name := range names {
		c := e.running[name]
		sig := syscall.SIGTERM
		if c.image.stopSignal == "SIGQUIT" {
			sig = syscall.SIGQUIT
		}
		_ = c.cmd.Process.Signal(sig) // it may have ended
	}
	for _, name := range names {
		c := e.running[name]
		grace := 10 * time.Second
		if c.service.StopGracePeriod != nil {
			grace = time.Duration(*c.service.StopGracePeriod)
		}
		select {
		case <-c.gone:
		case <-time.After(grace):
			e.t.Errorf("%s does not end within %s", name, grace)
			_ = c.cmd.Process.Kill()
			<-c.gone
		}
		if code := c.cmd.ProcessState.ExitCode(); code != 0 {
			e.t.Errorf("%s ended with %s", name, c.cmd.ProcessState)
		}
		e.forget(c)
	}
}

// up fails the test where a container has ended by itself.
func (e *engine) up(names ...string) {
	e.t.Helper()
	for _, name := range names {
		select {
		case <-e.running[name].gone:
			e.t.Fatalf("%s ended by itself: %s", name, e.running[name].cmd.ProcessState)
		default:
		}
	}
}

// startAll starts every service in the order that the file asks for.
func (e *engine) startAll() {
	e.t.Helper()
	err := e.p.ForEachService(nil, func(name string, s *types.ServiceConfig) error {
		for other, d := range s.DependsOn {
			switch d.Condition {
			case types.ServiceConditionStarted:
				e.up(other)
			case types.ServiceConditionHealthy:
				e.waitHealthy(other)
			case types.ServiceConditionCompletedSuccessfully:
				if c, runs := e.running[other]; runs {
					if code := e.ended(c); code != 0 {
						return fmt.Errorf("%s ended with %d", other, code)
					}
				}
			default:
				return fmt.Errorf("depends_on %s: this test does not know %s", other, d.Condition)
			}
		}
		e.start(name)
		return nil
	})
	if err != nil {
		e.t.Fatal(err)
	}
}

// exec runs a program in a container, as docker compose exec does.
func (e *engine) exec(ctx context.Context, name string, args ...string) ([]byte, error) {
	c := e.running[name]
	cmd := exec.CommandContext(ctx, "nsenter", append([]string{
		"--target", strconv.Itoa(c.cmd.Process.Pid), "--mount", "--uts", "--ipc", "--net", "--pid", "--root", "--wd",
		"--setuid", strconv.Itoa(c.uid), "--setgid", strconv.Itoa(c.gid), "--",
	}, args...)...)
	cmd.Env = c.env
	return cmd.CombinedOutput()
}

// health is what a service's health check says.
func (e *engine) health(name string) error {
	h := e.p.Services[name].HealthCheck
	if h == nil || h.Disable || len(h.Test) < 2 || h.Test[0] != "CMD" || h.Timeout == nil {
		e.t.Fatalf("%s: health check %+v: want one with CMD and a timeout", name, h)
	}
	ctx, cancel := context.WithTimeout(e.t.Context(), time.Duration(*h.Timeout))
	defer cancel()
	if out, err := e.exec(ctx, name, h.Test[1:]...); err != nil {
		return fmt.Errorf("%w: %s", err, bytes.TrimSpace(out))
	}
	return nil
}

func (e *engine) waitHealthy(names ...string) {
	e.t.Helper()
	for _, name := range names {
		until(e.t, name+" is healthy", func() error {
			e.up(name)
			return e.health(name)
		})
	}
}

// inside is where a container's file is, seen from outside.
func (e *engine) inside(name, path string) string {
	return filepath.Join("/proc", strconv.Itoa(e.running[name].cmd.Process.Pid), "root", path)
}

// files lists the files under a folder of a container.
func (e *engine) files(name, dir string) []string {
	e.t.Helper()
	from := e.inside(name, dir)
	var out []string
	err := filepath.WalkDir(from, func(path string, d fs.DirEntry, err error) error {
		if err == nil && !d.IsDir() {
			out = append(out, strings.TrimPrefix(path, from+"/"))
		}
		return err
	})
	if err != nil {
		e.t.Fatal(err)
	}
	return out
}

// prefixed writes what a container says to the test's log, line by line.
type prefixed struct {
	e    *engine
	name string
	rest []byte // of a line that has not ended
}

func (w *prefixed) Write(b []byte) (int, error) {
	w.e.output.Lock()
	defer w.e.output.Unlock()
	w.rest = append(w.rest, b...)
	for {
		line, rest, ended := bytes.Cut(w.rest, []byte("\n"))
		if !ended {
			return len(b), nil
		}
		fmt.Fprintf(w.e.t.Output(), "%s | %s\n", w.name, line)
		w.rest = bytes.Clone(rest)
	}
}
