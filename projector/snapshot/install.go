package snapshot

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"

	"github.com/tokenledger/tokenledger/projector"
)

// Options say how a snapshot is installed.
type Options struct {
	Wanted
	// Size is how large it is, for Progress. Zero means that nobody knows.
	Size int64
	// Progress, if set, is called now and then with how much was read of how
	// much.
	Progress func(done, total int64)
	// Reserve is how much disk space has to stay free, as in
	// [projector.Config].
	Reserve uint64
	// Logger receives what Badger warns of. Nil discards it.
	Logger *slog.Logger
}

// partialMark stands behind the name of a folder that is not whole yet.
const partialMark = ".partial"

// Install makes the folder dir, which must not exist, of a snapshot. It holds
// the whole index, or does not exist: what an earlier process left that was
// killed on the way is removed.
func Install(ctx context.Context, dir string, r io.Reader, o Options) (Header, error) {
	h, err := install(ctx, dir, r, o)
	if err != nil {
		return Header{}, fmt.Errorf("install snapshot: %w", err)
	}
	return h, nil
}

func install(ctx context.Context, dir string, r io.Reader, o Options) (h Header, err error) {
	if _, err := os.Lstat(dir); !errors.Is(err, os.ErrNotExist) {
		return h, fmt.Errorf("folder %s: %w", dir, errors.Join(os.ErrExist, err))
	}
	partial := dir + partialMark
	if err := os.RemoveAll(partial); err != nil {
		return h, err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, os.RemoveAll(partial))
		}
	}()
	var b *projector.Builder
	err = Read(&counted{ctx: ctx, r: r, o: o}, o.Wanted, func(header Header) (err error) {
		h = header
		b, err = projector.NewBuilder(projector.Config{Dir: partial, Reserve: o.Reserve, Logger: o.Logger}, h.head())
		return err
	}, func(key, value []byte) error { return b.Add(key, value) })
	switch {
	case b == nil:
		return h, err
	case err != nil:
		return h, errors.Join(err, b.Abort())
	}
	// Past this point it is known who made it.
	if err := b.Finish(ctx); err != nil {
		return h, err
	}
	if err := ctx.Err(); err != nil {
		return h, err
	}
	// Past this point the folder is whole and on the disk.
	return h, projector.Move(partial, dir)
}

// counted is a reader that says how far it is and ends with ctx.
type counted struct {
	ctx  context.Context
	r    io.Reader
	o    Options
	done int64
	said int64
}

// sayEvery is how many bytes lie between two calls of Progress.
const sayEvery = 1 << 20

func (c *counted) Read(b []byte) (int, error) {
	if err := c.ctx.Err(); err != nil {
		return 0, err
	}
	n, err := c.r.Read(b)
	c.done += int64(n)
	if c.o.Progress != nil && (c.done-c.said >= sayEvery || err != nil) {
		c.said = c.done
		c.o.Progress(c.done, c.o.Size)
	}
	return n, err
}
