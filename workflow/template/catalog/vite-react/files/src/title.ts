export const title = @@title.json@@;
