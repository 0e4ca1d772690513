/* Functions of slot.c that fill a slot sentence by sentence, for the loader in slots.c. */
#ifndef TEXT_SLOTS_PRIVATE_H
#define TEXT_SLOTS_PRIVATE_H

#include "text/slots.h"

struct elbo_marks;

void slot_clear(struct slot *slot);
/* Whether a sentence of these lengths, in tokens without marks, fits. */
bool slot_has_room(const struct slot *slot, const struct slot_options *options, size_t encoder_length,
                   size_t decoder_length);
void slot_add(struct slot *slot, const struct slot_options *options, const struct elbo_marks *encoder_marks,
              const struct elbo_marks *decoder_marks, const uint32_t *encoder_ids, size_t encoder_length,
              const uint32_t *decoder_ids, size_t decoder_length, uint64_t step, uint64_t sample, uint64_t source);
/* Adds a sentence to the counts alone, for a slot without arrays. */
void slot_count(struct slot *slot, const struct slot_options *options, size_t encoder_length, size_t decoder_length,
                uint64_t step, uint64_t sample);
/* Derives the orders after the last sentence was added. */
void slot_finish(struct slot *slot);

#endif
