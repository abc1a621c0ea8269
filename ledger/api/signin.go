package api

import (
	"context"
	"net/http"
	"time"

	"github.com/danielgtaylor/huma/v2"

	"github.com/tokenledger/tokenledger/ledger/signin"
)

// peopleTag marks the operations by which people sign in and manage what they do
// so by.
const peopleTag = "people"

type signInInput struct {
	Body struct {
		Login    string `json:"login,omitempty" maxLength:"200"`
		Password string `json:"password,omitempty" maxLength:"512" format:"password"`
		Code     string `json:"code,omitempty" maxLength:"64" doc:"of the second factor, or a recovery code"`
		Token    string `json:"token,omitempty" maxLength:"128" format:"password" doc:"in place of login and password, where the policy has token_sign_in"`
	}
}

type signInOutput struct {
	Body struct {
		Secret  string  `json:"secret" doc:"of the session, to be sent as a bearer; shown here and never again"`
		Session Session `json:"session"`
	}
}

type passwordInput struct {
	Body struct {
		Invitation string `json:"invitation" maxLength:"128" format:"password"`
		Password   string `json:"password" maxLength:"512" format:"password" doc:"15 characters at least, 128 at most; not a common one"`
	}
}

type passwordOutput struct {
	Body struct {
		Account string `json:"account" doc:"id of the account that has the password now"`
	}
}

type changePasswordInput struct {
	Body struct {
		Old string `json:"old" maxLength:"512" format:"password"`
		New string `json:"new" maxLength:"512" format:"password"`
	}
}

type inviteInput struct {
	AccountPath
	Body *struct {
		Reset bool `json:"reset_second_factor,omitempty" doc:"taking it up also takes the second factor away, for a person who has lost it"`
	}
}

type inviteOutput struct {
	Body struct {
		Account    string    `json:"account" doc:"the account's id"`
		Invitation string    `json:"invitation" doc:"with which the person sets a password, once; shown here and never again"`
		ExpiresAt  time.Time `json:"expires_at"`
	}
}

type codeInput struct {
	Body struct {
		Code string `json:"code" maxLength:"64"`
	}
}

type guardedInput struct {
	Body *struct {
		Code string `json:"code,omitempty" maxLength:"64" doc:"of the second factor that is there, or a recovery code; required where there is one"`
	}
}

func (in *guardedInput) code() string {
	if in.Body == nil {
		return ""
	}
	return in.Body.Code
}

type enrolmentOutput struct {
	Body struct {
		Secret string `json:"secret" doc:"for an app, in base32; shown here and never again"`
		URI    string `json:"uri" doc:"the same as an address for apps, to be drawn as a QR code"`
	}
}

type recoveryOutput struct {
	Body struct {
		Codes []string `json:"recovery_codes" doc:"each is good once, in place of a code; shown here and never again"`
	}
}

// done answers a request that there is nothing to say about.
type done struct {
	Body struct {
		Done bool `json:"done"`
	}
}

func isDone() *done {
	out := &done{}
	out.Body.Done = true
	return out
}

func (a *api) peopleRoutes(h huma.API) {
	op := peopleOperation
	open := func(o huma.Operation) huma.Operation {
		o.Security = []map[string][]string{{}} // needs nothing, unlike the rest
		return o
	}
	ok := http.StatusOK
	huma.Register(h, open(op(http.MethodPost, "/v1/session", "sign-in", "Open a session", ok)), a.signIn)
	huma.Register(h, open(op(http.MethodPost, "/v1/password", "set-password", "Take an invitation up and set a password", ok)), a.setPassword)
	huma.Register(h, op(http.MethodPut, "/v1/password", "change-password", "Change the caller's password, which ends the other sessions", ok), a.changePassword)
	huma.Register(h, op(http.MethodPost, "/v1/accounts/{id}/invite", "invite", "Make an invitation for a person to set a password", ok), a.invite)
	huma.Register(h, op(http.MethodPost, "/v1/second-factor", "add-second-factor", "Make a second factor, which counts once it is confirmed; replacing one takes a code", ok), a.addSecondFactor)
	huma.Register(h, op(http.MethodPost, "/v1/second-factor/confirm", "confirm-second-factor", "Confirm a second factor by a code of it", ok), a.confirmSecondFactor)
	huma.Register(h, op(http.MethodPost, "/v1/second-factor/recovery-codes", "renew-recovery-codes", "Replace the recovery codes", ok), a.renewRecovery)
	huma.Register(h, op(http.MethodPost, "/v1/second-factor/remove", "remove-second-factor", "Take the second factor away", ok), a.removeSecondFactor)
	a.sessionRoutes(h)
}

// peopleOperation describes an operation that counts failed attempts.
func peopleOperation(method, path, id, summary string, status int) huma.Operation {
	o := operation(peopleTag)(method, path, id, summary, status)
	o.Errors = append(o.Errors, http.StatusTooManyRequests)
	return o
}

// opens reports whether a request needs nobody: those by which people come in.
func opens(r *http.Request) bool {
	path := r.URL.EscapedPath()
	return r.Method == http.MethodPost && (path == "/v1/session" || path == "/v1/password")
}

func (a *api) signIn(ctx context.Context, in *signInInput) (*signInOutput, error) {
	b := in.Body
	var opened signin.Opened
	var err error
	switch given := b.Login != "" || b.Password != "" || b.Code != ""; {
	case b.Token != "" && given:
		return nil, a.fault(ctx, badField("token", "stands beside a login, and one of the two is meant"), false)
	case b.Token != "":
		opened, err = a.people.SignInToken(ctx, b.Token, addressFrom(ctx))
	default:
		opened, err = a.people.SignIn(ctx, signin.Attempt{Login: b.Login, Password: []byte(b.Password), Code: b.Code, Address: addressFrom(ctx)})
	}
	if err != nil {
		return nil, a.fault(ctx, err, false)
	}
	out := &signInOutput{}
	out.Body.Secret, out.Body.Session = opened.Secret.Reveal(), showSession(opened.Session, "")
	return out, nil
}

func (a *api) setPassword(ctx context.Context, in *passwordInput) (*passwordOutput, error) {
	id, err := a.people.Redeem(ctx, in.Body.Invitation, []byte(in.Body.Password), addressFrom(ctx))
	if err != nil {
		return nil, a.fault(ctx, err, false)
	}
	out := &passwordOutput{}
	out.Body.Account = string(id)
	return out, nil
}

func (a *api) changePassword(ctx context.Context, in *changePasswordInput) (*done, error) {
	if err := a.people.ChangePassword(ctx, callerFrom(ctx), []byte(in.Body.Old), []byte(in.Body.New)); err != nil {
		return nil, a.fault(ctx, err, false)
	}
	return isDone(), nil
}

func (a *api) invite(ctx context.Context, in *inviteInput) (*inviteOutput, error) {
	made, err := a.people.Invite(ctx, callerFrom(ctx), in.ID, in.Body != nil && in.Body.Reset)
	if err != nil {
		return nil, a.fault(ctx, inPath(err), false)
	}
	out := &inviteOutput{}
	out.Body.Account, out.Body.Invitation, out.Body.ExpiresAt = string(made.Account), made.Secret.Reveal(), made.Expires
	return out, nil
}

func (a *api) addSecondFactor(ctx context.Context, in *guardedInput) (*enrolmentOutput, error) {
	made, err := a.people.AddSecondFactor(ctx, callerFrom(ctx), in.code())
	if err != nil {
		return nil, a.fault(ctx, err, false)
	}
	out := &enrolmentOutput{}
	out.Body.Secret, out.Body.URI = made.Secret, made.URI
	return out, nil
}

func (a *api) confirmSecondFactor(ctx context.Context, in *codeInput) (*recoveryOutput, error) {
	return a.recoveryCodes(ctx)(a.people.Confirm(ctx, callerFrom(ctx), in.Body.Code))
}

func (a *api) renewRecovery(ctx context.Context, in *guardedInput) (*recoveryOutput, error) {
	return a.recoveryCodes(ctx)(a.people.RenewRecovery(ctx, callerFrom(ctx), in.code()))
}

func (a *api) recoveryCodes(ctx context.Context) func(codes []string, err error) (*recoveryOutput, error) {
	return func(codes []string, err error) (*recoveryOutput, error) {
		if err != nil {
			return nil, a.fault(ctx, err, false)
		}
		out := &recoveryOutput{}
		out.Body.Codes = codes
		return out, nil
	}
}

func (a *api) removeSecondFactor(ctx context.Context, in *codeInput) (*done, error) {
	if err := a.people.RemoveSecondFactor(ctx, callerFrom(ctx), in.Body.Code); err != nil {
		return nil, a.fault(ctx, err, false)
	}
	return isDone(), nil
}
