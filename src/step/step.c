/* One training step: recording, planning and allocating it, launching its slots and its update, and reading its
 * figures. */
#include "step/step.h"
#include "model/stack.h"
#include "step/schedule.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

/* ---- creating a step ---- */

static struct graph_capacities capacities_of(const struct slot_options *slots)
{
    size_t sentences = slot_sentence_capacity(slots);
    return (struct graph_capacities){{[DIM_ENC_TOKENS] = slots->encoder_tokens,
                                      [DIM_DEC_TOKENS] = slots->decoder_tokens,
                                      [DIM_SENTENCES] = sentences,
                                      [DIM_DRAWS] = sentences}};
}

static bool alternates(const struct step_options *o)
{
    return objective_aggressive(&o->objective);
}

elbo_status step_record(struct step *s, const struct step_options *o, elbo_error *error)
{
    *s = (struct step){.options = *o};
    if (o->slots.prefix != stack_prefix(&o->model))
        return elbo_fail(error, ELBO_USAGE,
                         "slots with %zu rows in front of a sentence are none for a decoder with %zu; make "
                         "slots.prefix equal to stack_prefix(&model)",
                         o->slots.prefix, stack_prefix(&o->model));
    struct graph_capacities capacities = capacities_of(&o->slots);
    struct train_recording recording = {.recompute = o->recompute, .wanted = optimizer_wanted(&o->optimizer)};
    elbo_status status = objective_create(&s->objective, &o->objective, &o->model, o->steps, error);
    if (!status) status = parameters_create(&s->parameters, error);
    if (!status)
        status = record_train(&s->recording, &o->model, &s->objective, s->parameters, &capacities, &recording, error);
    recording.wanted &= ~(3u << 2 * PART_DECODER); /* clears the decoder's groups, with and without decay */
    if (!status && alternates(o))
        status = record_train(&s->encoder, &o->model, &s->objective, s->parameters, &capacities, &recording, error);
    s->phase = (struct step_phase){.steps = o->steps};
    if (o->objective.autoencoder_steps) s->phase = (struct step_phase){0, o->objective.autoencoder_steps, true};
    if (!status) status = recording_layout(&s->recording, s->parameters, error);
    if (!status) status = sums_plan(&s->sums, &o->sums, &s->recording, s->parameters, error);
    if (status) step_free(s);
    return status;
}

elbo_status step_plan(struct step *s, struct backend *backend, elbo_error *error)
{
    s->backend = backend;
    if (s->encoder.g) ELBO_TRY(recording_plan(&s->encoder, backend, error));
    return recording_plan(&s->recording, backend, error);
}

/* Finds the running statistics that the recording's sums move; the sums are placed later. */
static void find_running(struct step *s)
{
    const struct latent_config *c = &s->options.model.latent;
    size_t index;
    if (!s->recording.sum_statistics.index || !parameters_find(s->parameters, latent_running(c), &index)) return;
    const struct parameter *p = parameters_get(s->parameters, index);
    s->controls.running = (struct running_statistics){.groups = p->shape[1],
                                                      .center = latent_running_centered(c),
                                                      .share = c->statistics_share,
                                                      .tensor = s->model.weights + p->offset};
}

/* Allocates the gradient arena, with the step's figures after the gradients, and the sum of both over lanes and
 * ranks. */
static elbo_status allocate_sums(struct step *s, elbo_error *error)
{
    struct optimizer_options updated = {.figures = sums_figures(&s->recording),
                                        .share = sums_share(&s->sums),
                                        .further = controls_record,
                                        .context = &s->controls};
    if (s->encoder.g)
        for (unsigned pass = 0; pass < PASSES; pass++) updated.parts[pass] = step_parts((enum step_pass)pass);
    ELBO_TRY(controls_create(&s->controls, &s->objective, s->backend, error));
    find_running(s);
    ELBO_TRY(optimizer_create(&s->optimizer, &s->options.optimizer, s->parameters, model_weights(&s->model), &updated,
                              s->backend, error));
    float *figures = s->optimizer.gradients + parameters_arena_elements(s->parameters);
    ELBO_TRY(recording_place_state(&s->recording, figures, error));
    if (s->encoder.g) ELBO_TRY(recording_place_state(&s->encoder, figures, error));
    return sums_open(&s->sums, &s->optimizer, &s->recording, &s->model, error);
}

static void bind_inputs(struct step *s, struct recording *r)
{
    recording_bind_input(r, "control", s->optimizer.control);
    recording_bind_input(r, "weights", s->objective.weights);
    recording_bind_input(r, "scales", controls_scales(&s->controls));
}

elbo_status step_allocate(struct step *s, elbo_error *error)
{
    ELBO_TRY(model_allocate(&s->model, &s->options.model, s->parameters, s->backend, error));
    ELBO_TRY(allocate_sums(s, error));
    ELBO_TRY(step_bind(s, error));
    optimizer_watch(&s->optimizer, executor_pointer(&s->recording.executor, s->recording.sum_loss));
    bind_inputs(s, &s->recording);
    if (s->encoder.g) bind_inputs(s, &s->encoder);
    s->controls.running.sums = executor_pointer(&s->recording.executor, s->recording.sum_statistics);
    controls_bind(&s->controls, &s->optimizer);
    return ELBO_OK;
}

elbo_status step_create(struct step *s, const struct step_options *options, struct backend *backend, elbo_error *error)
{
    ELBO_TRY(step_record(s, options, error));
    elbo_status status = step_plan(s, backend, error);
    if (!status) status = step_allocate(s, error);
    if (status) step_free(s);
    return status;
}

elbo_status step_bind(struct step *s, elbo_error *error)
{
    struct recording *all[] = {&s->recording, &s->encoder};
    return model_bind(&s->model, all, s->encoder.g ? 2 : 1, s->optimizer.gradients, error);
}

void step_part(struct step *s)
{
    if (s->recording.g) executor_forget(&s->recording.executor); /* NCCL ends only when no graph holds calls */
    if (s->encoder.g) executor_forget(&s->encoder.executor);
    sums_close(&s->sums);
}

void step_free(struct step *s)
{
    step_part(s);
    recording_free(&s->recording, s->backend);
    recording_free(&s->encoder, s->backend);
    if (s->optimizer.backend) optimizer_free(&s->optimizer);
    controls_free(&s->controls);
    if (s->model.backend)
        model_free(&s->model);
    else
        parameters_free(s->parameters);
    *s = (struct step){0};
}

/* ---- running ---- */

unsigned step_parts(enum step_pass pass)
{
    static const unsigned parts[] = {[PASS_WHOLE] = ALL_PARTS,
                                     [PASS_ENCODER] = 1u << PART_ENCODER | 1u << PART_LATENT,
                                     [PASS_DECODER] = 1u << PART_DECODER};
    return parts[pass];
}

struct launch {
    struct step *step;
    struct recording *recording;
    const struct slot_batch *batch;
};

static elbo_status run_slot(void *context, size_t number, bool first_of_lane, execute_progress progress,
                            void *progress_context, elbo_error *error)
{
    const struct launch *l = context;
    struct execution run = {.first_slot = first_of_lane,
                            .seed = l->step->options.seed,
                            .step = l->batch->step,
                            .progress = progress,
                            .progress_context = progress_context};
    recording_bind_slot(l->recording, &l->batch->slots[number], &run);
    return executor_run(&l->recording->executor, &run, error);
}

static void schedule_all(struct step *s, struct step_schedule *to, bool ahead)
{
    const struct optimizer_config *c = &s->options.optimizer;
    for (unsigned answer = 0; answer < 2; answer++) {
        uint64_t updates = s->optimizer.updates + (ahead ? answer : 0); /* else the last step is counted already */
        uint64_t of_phase = updates > s->phase.begin ? updates - s->phase.begin : 0;
        to->updates[answer] = updates;
        for (unsigned p = 0; p < PARTS; p++)
            to->part_updates[answer][p] =
                s->optimizer.part_updates[p] + (ahead && answer && step_parts(s->pass) >> p & 1);
        to->learning_rate[answer] = c->learning_rate * schedule_learning_rate(c, of_phase, s->phase.steps);
        s->objective.steps = s->phase.steps;
        s->objective.autoencoder = s->phase.autoencoder;
        objective_weigh(&s->objective, answer, of_phase, to->sentences);
        memcpy(to->scale[answer], s->objective.scale[answer], sizeof to->scale[answer]);
    }
}

elbo_status step_run(struct step *s, struct step_schedule *schedule, const struct slot_batch *batch, bool ahead,
                     elbo_error *error)
{
    return step_run_pass(s, schedule, PASS_WHOLE, batch, ahead, error);
}

/* An encoder's pass has its own schedule, which cannot await weights or gradients of other ranks. So weights are
 * gathered before it and gradients are summed after it. */
elbo_status step_run_pass(struct step *s, struct step_schedule *schedule, enum step_pass pass,
                          const struct slot_batch *batch, bool ahead, elbo_error *error)
{
    bool encoder = pass == PASS_ENCODER;
    struct launch launch = {s, encoder ? &s->encoder : &s->recording, batch};
    schedule->sentences = batch->sentences;
    schedule->pass = pass;
    schedule_all(s, schedule, ahead);
    s->pass = pass;
    if (encoder) ELBO_TRY(step_whole(s, error));
    return sums_run(&s->sums, batch->count, encoder ? SUMS_BEHIND : SUMS_BESIDE, run_slot, &launch, error);
}

elbo_status step_update(struct step *s, const struct step_schedule *schedule, uint64_t number, bool skip,
                        elbo_error *error)
{
    struct update u = {
        .kind = s->encoder.g ? schedule->pass : 0, .skip = skip, .seed = s->options.seed, .step = number};
    for (unsigned answer = 0; answer < 2; answer++) {
        memcpy(u.number[answer], schedule->part_updates[answer], sizeof u.number[answer]);
        u.learning_rate[answer] = schedule->learning_rate[answer];
    }
    controls_set(&s->controls, schedule->sentences);
    ELBO_TRY(optimizer_update(&s->optimizer, &u, error));
    s->apart = s->sums.gathering != NULL;
    return ELBO_OK;
}

elbo_status step_look(struct step *s, const struct slot_batch *batch, execute_hook hook, void *context,
                      elbo_error *error)
{
    struct launch launch = {s, &s->recording, batch};
    s->recording.executor.hook = hook;
    s->recording.executor.hook_context = context;
    elbo_status status = sums_run(&s->sums, batch->count, SUMS_NOT, run_slot, &launch, error);
    s->recording.executor.hook = NULL;
    return status;
}

elbo_status step_whole(struct step *s, elbo_error *error)
{
    if (s->apart) ELBO_TRY(gathering_whole(s->sums.gathering, error));
    s->apart = false;
    return ELBO_OK;
}

elbo_status step_reset_decoder(struct step *s, uint64_t seed, elbo_error *error)
{
    optimizer_clear(&s->optimizer, PART_DECODER);
    return model_initialize_part(&s->model, PART_DECODER, seed, error);
}

/* ---- figures ---- */

enum { FIGURES = 5 };

struct place {
    const void *from;
    size_t floats;
};

/* Lists the figures that are read back, in this order: the objective's parts, KL by dimension, moments, the guard's
 * decision, the states of controllers. */
static void list_figures(const struct step *s, struct place places[FIGURES])
{
    const struct recording *r = &s->recording;
    size_t z = s->options.model.latent.width;
    places[0] = (struct place){executor_pointer(&r->executor, r->sum_loss), objective_parts(&s->objective)};
    places[1] = (struct place){executor_pointer(&r->executor, r->sum_kl_dim), z};
    places[2] = (struct place){executor_pointer(&r->executor, r->sum_moments), 4 * z};
    places[3] = (struct place){s->optimizer.control, CONTROL_SIZE};
    places[4] = (struct place){controls_states(&s->controls), controls_state_floats(&s->controls)};
}

size_t step_read_floats(const struct step *s)
{
    return objective_parts(&s->objective) + 5 * s->options.model.latent.width + CONTROL_SIZE +
           controls_state_floats(&s->controls);
}

void step_read_later(const struct step *s, float *to)
{
    struct place places[FIGURES];
    list_figures(s, places);
    for (size_t i = 0; i < FIGURES; to += places[i++].floats)
        if (places[i].from)
            s->backend->memory.download_later(s->backend, to, places[i].from, places[i].floats * sizeof *to);
}

void step_figures(struct step *s, struct step_figures *f, const struct step_schedule *schedule, const float *read,
                  bool applied)
{
    size_t z = s->options.model.latent.width;
    const float *kl_dim = read + objective_parts(&s->objective), *moments = kl_dim + z, *control = moments + 4 * z;
    *f = (struct step_figures){.loss = read[ELBO_LOSS],
                               .gradient_norm = control[CONTROL_NORM],
                               .learning_rate = schedule->learning_rate[applied],
                               .applied = control[CONTROL_APPLIED] != 0,
                               .finite = control[CONTROL_FINITE] != 0,
                               .sentences = schedule->sentences};
    f->clipped = f->applied && s->options.optimizer.clip > 0 && f->gradient_norm > s->options.optimizer.clip;
    bool frees = s->options.objective.free_bits > 0 && s->options.model.latent.kind != LATENT_NONE;
    f->under_free = frees ? read[ELBO_UNDER] / (double)schedule->sentences : NAN;
    f->kl_dim = s->recording.sum_kl_dim.index ? kl_dim : NULL;
    f->moments = s->recording.sum_moments.index ? moments : NULL;
    double scale[OBJECTIVE_MOST_TERMS];
    memcpy(scale, schedule->scale[applied], sizeof scale);
    controls_used(&s->controls, scale, control + CONTROL_SIZE);
    f->count = objective_figures(&s->objective, f->terms, read, scale, (double)schedule->sentences);
    if (f->applied) optimizer_count(&s->optimizer, step_parts(schedule->pass));
}

/* ---- states ---- */

size_t step_states(struct step *s, struct step_state *states, char (*names)[STEP_STATE_NAME])
{
    const struct objective *o = &s->objective;
    size_t n = 0;
    for (size_t k = 0; k < o->count; k++) {
        if (!o->owner[k]) continue;
        snprintf(names[n], sizeof names[n], "objective.%s", o->owner[k]->name);
        states[n] =
            (struct step_state){names[n], controls_states(&s->controls) + n * CONTROLLER_STATE, CONTROLLER_STATE};
        n++;
    }
    return n;
}

void step_states_restored(struct step *s)
{
    controls_restored(&s->controls);
}
